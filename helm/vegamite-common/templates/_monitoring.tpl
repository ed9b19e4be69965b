{{/*
Objects of the Prometheus operator. They are made where the values want them and the cluster knows the kind: `helm template` learns that
by `--api-versions monitoring.coreos.com/v1`.
*/}}

{{- define "vegamite-common.serviceMonitor" -}}
{{- if and .Values.enabled .Values.serviceMonitor.enabled (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1") -}}
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  {{- include "vegamite-common.metadata" (dict "root" . "name" (include "vegamite-common.fullname" .)
    "component" (include "vegamite-common.component" .) "labels" .Values.serviceMonitor.labels) | nindent 2 }}
spec:
  selector:
    matchLabels:
      {{- include "vegamite-common.selector" (list . (include "vegamite-common.component" .)) | nindent 6 }}
      vegamite.io/port: management
  endpoints:
    - {{- include "vegamite-common.scrape" .Values.serviceMonitor | nindent 6 }}
{{- end -}}
{{- end -}}

{{- define "vegamite-common.podMonitor" -}}
{{- if and .Values.enabled .Values.podMonitor.enabled (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1") -}}
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  {{- include "vegamite-common.metadata" (dict "root" . "name" (include "vegamite-common.fullname" .)
    "component" (include "vegamite-common.component" .) "labels" .Values.podMonitor.labels) | nindent 2 }}
spec:
  selector:
    matchLabels:
      {{- include "vegamite-common.selector" (list . (include "vegamite-common.component" .)) | nindent 6 }}
  podMetricsEndpoints:
    - {{- include "vegamite-common.scrape" .Values.podMonitor | nindent 6 }}
{{- end -}}
{{- end -}}

{{- define "vegamite-common.scrape" -}}
port: management
path: /metrics
interval: {{ .interval }}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- with .relabelings }}
relabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
