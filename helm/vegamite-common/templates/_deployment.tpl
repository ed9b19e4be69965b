{{/*
The service itself: (dict root args ports). Replicas are the values' only where nothing else sets them. Where a scaler does, what runs now
is said again: an upgrade that took a number away would have one pod run until the scaler looks (decision 0007).
*/}}
{{- define "vegamite-common.deployment" -}}
{{- if .root.Values.enabled -}}
{{- include "vegamite-common.validate" .root -}}
{{- include "vegamite-common.workload" . -}}
{{- end -}}
{{- end -}}

{{/* The Deployment as such, of the same. */}}
{{- define "vegamite-common.workload" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
{{- $name := include "vegamite-common.fullname" $root -}}
{{- $component := include "vegamite-common.component" $root -}}
{{- $postgres := include "vegamite-common.postgres" $root | fromJson -}}
{{- $lifecycle := $values.lifecycle | default dict -}}
{{- if and (not $lifecycle) $values.preStopSeconds -}}
  {{- $lifecycle = dict "preStop" (dict "sleep" (dict "seconds" $values.preStopSeconds)) -}}
{{- end -}}
{{- $pod := dict "root" $root "component" $component "args" .args "ports" .ports "configMap" $name "postgres" $postgres "extended" true
  "accountName" (include "vegamite-common.serviceAccountName" $root)
  "graceSeconds" (include "vegamite-common.graceSeconds" $root) "lifecycle" $lifecycle
  "probes" (include "vegamite-common.probes" $root | fromYaml) -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "vegamite-common.metadata" (dict "root" $root "name" $name "component" $component "annotations" $values.annotations) | nindent 2 }}
spec:
  {{- if eq $values.autoscaling.type "none" }}
  replicas: {{ int $values.replicas }}
  {{- else }}
  {{- with lookup "apps/v1" "Deployment" $root.Release.Namespace $name }}
  replicas: {{ int .spec.replicas }}
  {{- end }}
  {{- end }}
  revisionHistoryLimit: {{ int $values.revisionHistoryLimit }}
  minReadySeconds: {{ int $values.minReadySeconds }}
  progressDeadlineSeconds: {{ int $values.progressDeadlineSeconds }}
  strategy:
    {{- toYaml $values.strategy | nindent 4 }}
  selector:
    matchLabels:
      {{- include "vegamite-common.selector" (list $root $component) | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "vegamite-common.podLabels" (list $root $component) | nindent 8 }}
        {{- with $values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        checksum/config: {{ include "vegamite-common.toml" (dict "root" $root "postgres" $postgres) | sha256sum }}
        {{- with $values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "vegamite-common.podSpec" $pod | nindent 6 }}
{{- end -}}

{{/* How long a pod may take to end: what it sleeps first, the service's own 25 s, and 5 s to spare. */}}
{{- define "vegamite-common.graceSeconds" -}}
{{- .Values.terminationGracePeriodSeconds | default (add (.Values.preStopSeconds | default 0) 30) | int -}}
{{- end -}}

{{/*
The probes. /healthz itself says no only once the loop has not moved for 60 s, which is Kafka's max.poll.interval; it asks no database
and no broker. The management port listens once those are there, so the start may take three waits of 60 s.
*/}}
{{- define "vegamite-common.probes" -}}
startupProbe:
  httpGet:
    path: /healthz
    port: management
  {{- toYaml .Values.probes.startup | nindent 2 }}
livenessProbe:
  httpGet:
    path: /healthz
    port: management
  {{- toYaml .Values.probes.liveness | nindent 2 }}
readinessProbe:
  httpGet:
    path: /readyz
    port: management
  {{- toYaml .Values.probes.readiness | nindent 2 }}
{{- end -}}
