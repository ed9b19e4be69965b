{{/*
What no schema can refuse, because it needs two values to see it. Every problem is told at once, each with what to set.
*/}}
{{- define "vegamite-common.validate" -}}
{{- $problems := list -}}
{{- $values := .Values -}}
{{- $global := $values.global | default dict -}}
{{- $chart := .Chart.Name -}}
{{- $kafka := include "vegamite-common.kafka" . | fromJson -}}
{{- $postgres := include "vegamite-common.postgres" . | fromJson -}}
{{- $cap := include "vegamite-common.replicaCap" . | int -}}

{{- if include "vegamite-common.quickstart" . -}}
  {{- if .Chart.IsRoot -}}
    {{- $problems = append $problems (printf "global.quickstart belongs to the chart vegamite, which brings Kafka and PostgreSQL along; the chart %s alone needs kafka.bootstrapServers and postgres.host" $chart) -}}
  {{- end -}}
  {{- $problems = concat $problems (include "vegamite-common.quickstartProblems" (list . $chart) | fromJsonArray) -}}
{{- else -}}
  {{- if not $kafka.bootstrapServers -}}
    {{- $problems = append $problems "kafka.bootstrapServers is empty: set it (or global.kafka.bootstrapServers) to host:port of your Kafka, or try vegamite out with the chart vegamite and global.quickstart=true" -}}
  {{- end -}}
  {{- if not (or $postgres.host $postgres.urlSecret) -}}
    {{- $problems = append $problems "postgres.host is empty: set it (or global.postgres.host) to your PostgreSQL's name, or postgres.urlSecret to a Secret with the whole address" -}}
  {{- end -}}
{{- end -}}

{{- if hasPrefix "SASL" $kafka.securityProtocol -}}
  {{- if not (and $kafka.sasl.username $kafka.sasl.existingSecret) -}}
    {{- $problems = append $problems (printf "kafka.securityProtocol %s needs kafka.sasl.username, and kafka.sasl.existingSecret with the password" $kafka.securityProtocol) -}}
  {{- end -}}
{{- else if $kafka.sasl.existingSecret -}}
  {{- $problems = append $problems (printf "kafka.sasl.existingSecret is set, but kafka.securityProtocol %s sends no password: set SASL_SSL (or SASL_PLAINTEXT)" $kafka.securityProtocol) -}}
{{- end -}}
{{- if and $kafka.tls.existingSecret (not (hasSuffix "SSL" $kafka.securityProtocol)) -}}
  {{- $problems = append $problems (printf "kafka.tls.existingSecret is set, but kafka.securityProtocol %s uses no TLS: set SSL or SASL_SSL" $kafka.securityProtocol) -}}
{{- end -}}
{{- if ne (empty $kafka.tls.certKey) (empty $kafka.tls.keyKey) -}}
  {{- $problems = append $problems "kafka.tls.certKey and kafka.tls.keyKey go together: the client's certificate and its private key" -}}
{{- end -}}
{{- if and (or $kafka.tls.certKey $kafka.tls.keyPasswordKey) (not $kafka.tls.clientSecret) -}}
  {{- $problems = append $problems "kafka.tls.certKey needs kafka.tls.clientSecret (or kafka.tls.existingSecret), the Secret with the client's certificate" -}}
{{- end -}}
{{- if gt (int $kafka.topics.minInsyncReplicas) (int $kafka.topics.replicationFactor) -}}
  {{- $problems = append $problems (printf "kafka.topics.minInsyncReplicas %d is more than kafka.topics.replicationFactor %d: nothing could ever be written" (int $kafka.topics.minInsyncReplicas) (int $kafka.topics.replicationFactor)) -}}
{{- end -}}
{{- if and (hasPrefix "verify" $postgres.sslMode) (not $postgres.tls.existingSecret) (not $postgres.urlSecret) -}}
  {{- $problems = append $problems (printf "postgres.sslMode %s needs the authority's certificate: set postgres.tls.existingSecret" $postgres.sslMode) -}}
{{- end -}}
{{- if and $postgres.tls.existingSecret $postgres.urlSecret -}}
  {{- $problems = append $problems "postgres.tls.existingSecret and postgres.urlSecret exclude each other: the whole address also says how TLS is checked" -}}
{{- end -}}

{{- $scaling := $values.autoscaling -}}
{{- if eq $scaling.type "none" -}}
  {{- if gt (int $values.replicas) $cap -}}
    {{- $problems = append $problems (printf "replicas %d is more than the %d partitions that kafka.topics.partitions says: the others would have nothing to do; lower replicas, or raise the partitions if Kafka's topics have more" (int $values.replicas) $cap) -}}
  {{- end -}}
{{- else -}}
  {{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
    {{- $problems = append $problems (printf "autoscaling.minReplicas %d is more than autoscaling.maxReplicas %d" (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
  {{- end -}}
  {{- if gt (int $scaling.minReplicas) $cap -}}
    {{- $problems = append $problems (printf "autoscaling.minReplicas %d is more than the %d partitions that kafka.topics.partitions says: the others would have nothing to do" (int $scaling.minReplicas) $cap) -}}
  {{- end -}}
  {{- if and (eq $scaling.type "keda") (ne $chart "aggregator") -}}
    {{- $why := "it has no lag in Kafka" -}}
    {{- if eq $chart "collector" }}{{ $why = "it never commits to Kafka, so its lag means nothing" }}{{ end -}}
    {{- $problems = append $problems (printf "autoscaling.type keda doesn't fit the %s: %s; use hpa (CPU)" $chart $why) -}}
  {{- end -}}
{{- end -}}

{{- $least := add ($values.preStopSeconds | default 0) 25 | int -}}
{{- if lt (include "vegamite-common.graceSeconds" . | int) $least -}}
  {{- $problems = append $problems (printf "terminationGracePeriodSeconds %s is too short: a pod needs up to %d s to hand over what it holds" (include "vegamite-common.graceSeconds" .) $least) -}}
{{- end -}}
{{- if and $values.serviceMonitor.enabled $values.podMonitor.enabled -}}
  {{- $problems = append $problems "serviceMonitor.enabled and podMonitor.enabled would scrape each pod twice: choose one" -}}
{{- end -}}
{{- range list "exposedSecrets" "ownedKeys" "halfSet" "sinkProblems" -}}
  {{- $problems = concat $problems (include (print "vegamite-common." .) $ | fromJsonArray) -}}
{{- end -}}

{{- if $problems -}}
  {{- fail (printf "\n\nThese values can't work (chart %s):\n  - %s\n" $chart (join "\n  - " $problems)) -}}
{{- end -}}
{{- end -}}

{{/* What a quickstart excludes, of (list root prefix), as a JSON list of sentences. */}}
{{- define "vegamite-common.quickstartProblems" -}}
{{- $root := index . 0 -}}
{{- $problems := list -}}
{{- $global := $root.Values.global | default dict -}}
{{- range $where, $tables := dict "global." $global (print (index . 1) ".") $root.Values -}}
  {{- range $key := list "bootstrapServers" "securityProtocol" "sasl" "tls" -}}
    {{- if get ($tables.kafka | default dict) $key -}}
      {{- $problems = append $problems (printf "global.quickstart brings its own Kafka, and %skafka.%s names another: leave one of the two away" $where $key) -}}
    {{- end -}}
  {{- end -}}
  {{- range $key := list "host" "port" "database" "username" "existingSecret" "passwordKey" "urlSecret" "sslMode" "tls" -}}
    {{- if get ($tables.postgres | default dict) $key -}}
      {{- $problems = append $problems (printf "global.quickstart brings its own PostgreSQL, and %spostgres.%s names another: leave one of the two away" $where $key) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if ($root.Values.migration | default dict).postgres -}}
  {{- $problems = append $problems (printf "global.quickstart brings its own PostgreSQL, and %s.migration.postgres names a user of another: leave one of the two away" (index . 1)) -}}
{{- end -}}
{{- $problems | uniq | toJson -}}
{{- end -}}
