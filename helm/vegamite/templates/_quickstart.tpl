{{/*
The servers that a quickstart brings along: one pod each, of the image that everybody can pull, by what that image documents. They pass
the `restricted` Pod Security level as everything else does.
*/}}

{{/* metadata of an object of one server, of (dict root part). */}}
{{- define "vegamite.quickstartMetadata" -}}
{{- include "vegamite-common.metadata" (dict "root" .root "name" (include "vegamite-common.partName" (list .root .part)) "component" .part
  "annotations" (dict "vegamite.io/purpose" "quickstart, not for production")) -}}
{{- end -}}

{{/* The Service before a server, of (dict root part port). */}}
{{- define "vegamite.quickstartService" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "vegamite.quickstartMetadata" . | nindent 2 }}
spec:
  ports:
    - name: {{ .part }}
      port: {{ .port }}
      targetPort: {{ .part }}
      protocol: TCP
  selector:
    {{- include "vegamite-common.selector" (list .root .part) | nindent 4 }}
{{- end -}}

{{/* Only this release's pods reach a server. PostgreSQL reaches nobody; Kafka itself, by its name: of (dict root part). */}}
{{- define "vegamite.quickstartNetworkPolicy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "vegamite.quickstartMetadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "vegamite-common.selector" (list .root .part) | nindent 6 }}
  policyTypes:
    - Ingress
    - Egress
  ingress:
    # The services, the migration, and the demo's Job.
    - ports:
        - port: {{ .part }}
          protocol: TCP
      from:
        - podSelector:
            matchLabels:
              app.kubernetes.io/instance: {{ .root.Release.Name }}
              app.kubernetes.io/part-of: vegamite
  {{- if eq .part "kafka" }}
  egress:
    {{- include "vegamite-common.dnsEgress" .root.Values.collector.networkPolicy.dns | nindent 4 }}
    # What it calls itself by.
    - ports:
        - port: {{ .part }}
          protocol: TCP
      to:
        - podSelector:
            matchLabels:
              {{- include "vegamite-common.selector" (list .root .part) | nindent 14 }}
  {{- else }}
  egress: []
  {{- end }}
{{- end -}}

{{/* Refuses what a quickstart can't do without, or can't have. */}}
{{- define "vegamite.validate" -}}
{{- $values := .Values -}}
{{- $problems := list -}}
{{- if $values.global.quickstart -}}
  {{- if not (and $values.aggregator.enabled $values.aggregator.migration.enabled) -}}
    {{- $problems = append $problems "global.quickstart needs aggregator.enabled and aggregator.migration.enabled: its own PostgreSQL has no schema else" -}}
  {{- end -}}
  {{- range $where, $tables := dict "global" $values.global "aggregator" $values.aggregator -}}
    {{- if gt (int ((($tables.kafka | default dict).topics | default dict).replicationFactor | default 1)) 1 -}}
      {{- $problems = append $problems (printf "%s.kafka.topics.replicationFactor is more than global.quickstart's one broker" $where) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if $problems -}}
  {{- fail (printf "\n\nThese values can't work (chart vegamite):\n  - %s\n" (join "\n  - " $problems)) -}}
{{- end -}}
{{- end -}}

{{/* What a server's StatefulSet says besides its container, of (dict root part). */}}
{{- define "vegamite.quickstartSet" -}}
serviceName: {{ include "vegamite-common.partName" (list .root .part) }}
replicas: 1
selector:
  matchLabels:
    {{- include "vegamite-common.selector" (list .root .part) | nindent 4 }}
{{- end -}}

{{/* What a server's pod says besides its container, of (dict root user). */}}
{{- define "vegamite.quickstartPod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- include "vegamite-common.imagePullSecrets" .root }}
terminationGracePeriodSeconds: 30
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .user }}
  runAsGroup: {{ .user }}
  fsGroup: {{ .user }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{- define "vegamite.quickstartSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
    - ALL
{{- end -}}

{{/* The volume that stays when the release is gone, of (dict root part server). */}}
{{- define "vegamite.quickstartClaim" -}}
- metadata:
    name: data
    labels:
      {{- include "vegamite-common.selector" (list .root .part) | nindent 6 }}
  spec:
    accessModes:
      - ReadWriteOnce
    {{- with .server.storageClassName }}
    storageClassName: {{ . }}
    {{- end }}
    resources:
      requests:
        storage: {{ .server.storage }}
{{- end -}}
