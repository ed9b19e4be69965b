{{/*
Who says how many pods run: `autoscaling.type`, none, hpa (CPU) or keda (lag). Kafka gives each partition to one consumer, so more
consumers than partitions would idle: no scaler goes beyond.
*/}}

{{/* Most useful pods: the partitions for a consumer, for the api what the values say. */}}
{{- define "vegamite-common.replicaCap" -}}
{{- if eq .Chart.Name "api" -}}
2147483647
{{- else -}}
{{- (include "vegamite-common.kafka" . | fromJson).topics.partitions | int -}}
{{- end -}}
{{- end -}}

{{- define "vegamite-common.leastReplicas" -}}
{{- if eq .Values.autoscaling.type "none" }}{{ int .Values.replicas }}{{ else }}{{ int .Values.autoscaling.minReplicas }}{{ end -}}
{{- end -}}

{{- define "vegamite-common.mostReplicas" -}}
{{- if eq .Values.autoscaling.type "none" -}}
{{- int .Values.replicas -}}
{{- else -}}
{{- min (int .Values.autoscaling.maxReplicas) (include "vegamite-common.replicaCap" . | int) -}}
{{- end -}}
{{- end -}}

{{- define "vegamite-common.horizontalPodAutoscaler" -}}
{{- if and .Values.enabled (eq .Values.autoscaling.type "hpa") -}}
{{- $scaling := .Values.autoscaling -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "vegamite-common.metadata" (dict "root" . "name" (include "vegamite-common.fullname" .) "component" .Chart.Name) | nindent 2 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "vegamite-common.fullname" . }}
  minReplicas: {{ int $scaling.minReplicas }}
  maxReplicas: {{ include "vegamite-common.mostReplicas" . }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: {{ int $scaling.hpa.cpuUtilization }}
  {{- with $scaling.hpa.behavior }}
  behavior:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/* Whether the scaler has to log in to Kafka: "true" or nothing. */}}
{{- define "vegamite-common.scalerUser" -}}
{{- if and (eq .Values.autoscaling.type "keda") (hasPrefix "SASL" (include "vegamite-common.kafka" . | fromJson).securityProtocol) }}true{{ end -}}
{{- end -}}

{{- define "vegamite-common.scaledObject" -}}
{{- if and .Values.enabled (eq .Values.autoscaling.type "keda") -}}
{{- $scaling := .Values.autoscaling -}}
{{- $name := include "vegamite-common.fullname" . -}}
{{- $kafka := include "vegamite-common.kafka" . | fromJson -}}
{{- $authenticated := ne $kafka.securityProtocol "PLAINTEXT" -}}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  {{- include "vegamite-common.metadata" (dict "root" . "name" $name "component" .Chart.Name) | nindent 2 }}
spec:
  scaleTargetRef:
    name: {{ $name }}
  minReplicaCount: {{ int $scaling.minReplicas }}
  maxReplicaCount: {{ include "vegamite-common.mostReplicas" . }}
  pollingInterval: {{ int $scaling.keda.pollingInterval }}
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        {{- toYaml $scaling.keda.behavior | nindent 8 }}
  {{- with $scaling.keda.fallback }}
  fallback:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  triggers:
    - type: kafka
      metadata:
        bootstrapServers: {{ include "vegamite-common.kafkaFromElsewhere" . | quote }}
        consumerGroup: {{ ((.Values.config | default dict).aggregator | default dict).group | default "vegamite-aggregator" | quote }}
        topic: market.trades.v1
        lagThreshold: {{ $scaling.keda.lagThreshold | quote }}
        activationLagThreshold: "0"
        offsetResetPolicy: earliest
        allowIdleConsumers: "false"
        version: {{ $scaling.keda.kafkaVersion | quote }}
        {{- if $authenticated }}
        {{- if hasPrefix "SASL" $kafka.securityProtocol }}
        sasl: {{ get (dict "PLAIN" "plaintext" "SCRAM-SHA-256" "scram_sha256" "SCRAM-SHA-512" "scram_sha512") $kafka.sasl.mechanism }}
        {{- end }}
        tls: {{ ternary "enable" "disable" (hasSuffix "SSL" $kafka.securityProtocol) }}
        {{- end }}
      {{- if include "vegamite-common.scalerCredentials" . | fromJsonArray }}
      authenticationRef:
        name: {{ $name }}
      {{- end }}
{{- end -}}
{{- end -}}

{{/* Kafka's addresses as another namespace has to call them: the scaler looks from its own. */}}
{{- define "vegamite-common.kafkaFromElsewhere" -}}
{{- $addresses := list -}}
{{- range splitList "," (include "vegamite-common.kafka" . | fromJson).bootstrapServers -}}
  {{- $host := . | trim | splitList ":" | first -}}
  {{- $port := . | trim | splitList ":" | last -}}
  {{- if not (contains "." $host) -}}
    {{- $host = printf "%s.%s.svc.%s" $host $.Release.Namespace (include "vegamite-common.clusterDomain" $) -}}
  {{- end -}}
  {{- $addresses = append $addresses (printf "%s:%s" $host $port) -}}
{{- end -}}
{{- join "," $addresses -}}
{{- end -}}

{{/* What the scaler takes from secrets, as a JSON list of (dict parameter name key). */}}
{{- define "vegamite-common.scalerCredentials" -}}
{{- $kafka := include "vegamite-common.kafka" . | fromJson -}}
{{- $references := list -}}
{{- if hasPrefix "SASL" $kafka.securityProtocol -}}
  {{- $references = append $references (dict "parameter" "password" "name" $kafka.sasl.existingSecret "key" $kafka.sasl.passwordKey) -}}
{{- end -}}
{{- if hasSuffix "SSL" $kafka.securityProtocol -}}
  {{- with $kafka.tls.existingSecret -}}
    {{- $references = append $references (dict "parameter" "ca" "name" . "key" $kafka.tls.caKey) -}}
  {{- end -}}
  {{- if $kafka.tls.certKey -}}
    {{- $references = append $references (dict "parameter" "cert" "name" $kafka.tls.clientSecret "key" $kafka.tls.certKey) -}}
    {{- $references = append $references (dict "parameter" "key" "name" $kafka.tls.clientSecret "key" $kafka.tls.keyKey) -}}
  {{- end -}}
  {{- with $kafka.tls.keyPasswordKey -}}
    {{- $references = append $references (dict "parameter" "keyPassword" "name" $kafka.tls.clientSecret "key" .) -}}
  {{- end -}}
{{- end -}}
{{- $references | toJson -}}
{{- end -}}

{{- define "vegamite-common.triggerAuthentication" -}}
{{- $references := include "vegamite-common.scalerCredentials" . | fromJsonArray -}}
{{- if and .Values.enabled (eq .Values.autoscaling.type "keda") $references -}}
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
metadata:
  {{- include "vegamite-common.metadata" (dict "root" . "name" (include "vegamite-common.fullname" .) "component" .Chart.Name) | nindent 2 }}
spec:
  {{- if include "vegamite-common.scalerUser" . }}
  configMapTargetRef:
    - parameter: username
      name: {{ include "vegamite-common.fullname" . }}
      key: kafka-username
  {{- end }}
  secretTargetRef:
    {{- toYaml $references | nindent 4 }}
{{- end -}}
{{- end -}}
