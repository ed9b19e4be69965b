{{/*
The sink, which copies trades and candles to InfluxDB: the aggregator's image in another role. It is a service of its own, with what the
other templates make of one, and shares with the aggregator the values that say how a pod is made.
*/}}

{{/* Make a root for it, of (list root sink), in the empty table `sink`: the chart's, with the values that are the sink's in their place. */}}
{{- define "vegamite-common.asSink" -}}
{{- $root := index . 0 -}}
{{- $sink := index . 1 -}}
{{- $values := deepCopy $root.Values -}}
{{- $own := $values.sink -}}
{{- $name := printf "%s-sink" (include "vegamite-common.shortened" (list (include "vegamite-common.fullname" $root) 41)) -}}
{{- $_ := set $values "fullnameOverride" $name -}}
{{- $_ := set $values "serviceAccount" (dict "create" $values.serviceAccount.create "name" (include "vegamite-common.serviceAccountName" $root)) -}}
{{- $_ := set $values "replicas" $own.replicas -}}
{{- $_ := set $values "resources" $own.resources -}}
{{- $_ := set $values "autoscaling" (dict "type" "none") -}}
{{- $kafka := $values.kafka | default dict -}}
{{- include "vegamite-common.overlay" (list $kafka ($own.kafka | default dict)) -}}
{{- $user := ($own.kafka | default dict).sasl | default dict -}}
{{- if and $user.existingSecret (not $user.passwordKey) -}}
  {{- $_ := set $kafka.sasl "passwordKey" "password" -}}
{{- end -}}
{{- $_ := set $values "kafka" $kafka -}}
{{- $_ := set $sink "Values" $values -}}
{{- $_ := set $sink "Chart" $root.Chart -}}
{{- $_ := set $sink "Release" $root.Release -}}
{{- $_ := set $sink "Capabilities" $root.Capabilities -}}
{{- $_ := set $sink "component" "sink" -}}
{{- $_ := set $sink "influxdb" $own -}}
{{- end -}}

{{- define "vegamite-common.sink" -}}
{{- if and .Values.enabled .Values.sink.enabled -}}
{{- $sink := dict -}}
{{- include "vegamite-common.asSink" (list . $sink) -}}
{{ include "vegamite-common.configMap" $sink }}
---
{{ include "vegamite-common.workload" (dict "root" $sink "args" (list "run" "--role" "influx" "--config" "/etc/vegamite/vegamite.toml")
  "ports" (dict "management" 8001)) }}
---
{{ include "vegamite-common.managementService" $sink }}
---
{{ include "vegamite-common.podDisruptionBudget" $sink }}
---
{{ include "vegamite-common.networkPolicy" $sink }}
---
{{ include "vegamite-common.serviceMonitor" $sink }}
---
{{ include "vegamite-common.podMonitor" $sink }}
{{- end -}}
{{- end -}}

{{/* What is wrong with the sink's values, as a JSON list of sentences, of the chart's root. */}}
{{- define "vegamite-common.sinkProblems" -}}
{{- $problems := list -}}
{{- $sink := .Values.sink | default dict -}}
{{- if $sink.enabled -}}
  {{- $cap := include "vegamite-common.replicaCap" . | int -}}
  {{- $protocol := (include "vegamite-common.kafka" . | fromJson).securityProtocol -}}
  {{- $user := ($sink.kafka | default dict).sasl | default dict -}}
  {{- if not $sink.url -}}
    {{- $problems = append $problems "sink.enabled needs sink.url: the address of InfluxDB, as http://influxdb:8086" -}}
  {{- end -}}
  {{- if not $sink.existingSecret -}}
    {{- $problems = append $problems "sink.enabled needs sink.existingSecret: the Secret with InfluxDB's token" -}}
  {{- end -}}
  {{- if gt (int $sink.replicas) $cap -}}
    {{- $problems = append $problems (printf "sink.replicas %d is more than the %d partitions that kafka.topics.partitions says: the others would have nothing to do" (int $sink.replicas) $cap) -}}
  {{- end -}}
  {{- if eq $sink.bucket $sink.downsampledBucket -}}
    {{- $problems = append $problems (printf "sink.bucket and sink.downsampledBucket are both %s: the longer candles need a bucket of their own" $sink.bucket) -}}
  {{- end -}}
  {{- if and $sink.tls.existingSecret (not (hasPrefix "https:" $sink.url)) -}}
    {{- $problems = append $problems "sink.tls.existingSecret is set, but sink.url uses no TLS: let it begin with https://" -}}
  {{- end -}}
  {{- if ne (empty $user.username) (empty $user.existingSecret) -}}
    {{- $problems = append $problems "sink.kafka.sasl.username and sink.kafka.sasl.existingSecret go together: another user than the aggregator's, and its password" -}}
  {{- end -}}
  {{- if and $user.existingSecret (not (hasPrefix "SASL" $protocol)) -}}
    {{- $problems = append $problems (printf "sink.kafka.sasl.existingSecret is set, but kafka.securityProtocol %s sends no password: set SASL_SSL (or SASL_PLAINTEXT)" $protocol) -}}
  {{- end -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end -}}
