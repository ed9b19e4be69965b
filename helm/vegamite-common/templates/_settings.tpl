{{/*
What the services are told, as it follows from the values: a chart's own value over `global`'s over the default. Each template
answers in JSON, for `fromJson`; so whole numbers come as floats, and whoever prints one makes it whole again.
*/}}

{{/* Lay one table over another, of (list onto from), in place. Unlike mergeOverwrite it lets false, 0 and "" win. */}}
{{- define "vegamite-common.overlay" -}}
{{- $onto := index . 0 -}}
{{- range $key, $value := index . 1 -}}
  {{- $below := get $onto $key -}}
  {{- if and (kindIs "map" $value) (kindIs "map" $below) -}}
    {{- include "vegamite-common.overlay" (list $below $value) -}}
  {{- else if kindIs "map" $value -}}
    {{- $_ := set $onto $key (deepCopy $value) -}}
  {{- else if not (kindIs "invalid" $value) -}}
    {{- $_ := set $onto $key $value -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* How Kafka is reached, and its topics. */}}
{{- define "vegamite-common.kafka" -}}
{{- $kafka := dict
  "bootstrapServers" "kafka:9092"
  "securityProtocol" "PLAINTEXT"
  "sasl" (dict "mechanism" "SCRAM-SHA-512" "username" "" "existingSecret" "" "passwordKey" "password")
  "tls" (dict "existingSecret" "" "caKey" "ca.crt" "clientSecret" "" "certKey" "" "keyKey" "" "keyPasswordKey" "")
  "topics" (dict "manage" true "partitions" 12 "replicationFactor" 1 "minInsyncReplicas" 1
    "tradesRetentionHours" 168 "candlesRetentionHours" 168 "statusRetentionHours" 24
    "deadLettersRetentionHours" 720)
-}}
{{- include "vegamite-common.overlay" (list $kafka ((.Values.global | default dict).kafka | default dict)) -}}
{{- include "vegamite-common.overlay" (list $kafka (.Values.kafka | default dict)) -}}
{{- if include "vegamite-common.quickstart" . -}}
  {{- $_ := set $kafka "bootstrapServers" (printf "%s:9092" (include "vegamite-common.quickstartHost" (list . "kafka"))) -}}
{{- end -}}
{{- $_ := set $kafka.tls "clientSecret" ($kafka.tls.clientSecret | default $kafka.tls.existingSecret) -}}
{{- $kafka | toJson -}}
{{- end -}}

{{/* How PostgreSQL is reached by the service; the sink is given nothing of it, unless it reads candles there. */}}
{{- define "vegamite-common.postgres" -}}
{{- if not .influxdb -}}
{{- include "vegamite-common.postgresAs" (list . dict) -}}
{{- else if .influxdb.readRevised -}}
{{- include "vegamite-common.postgresAs" (list . (.influxdb.postgres | default dict)) -}}
{{- else -}}
{{- dict "host" "" "tls" dict | toJson -}}
{{- end -}}
{{- end -}}

{{/* How PostgreSQL is reached, of (list root table): the table, as of the migration's own user, lies over everything else. */}}
{{- define "vegamite-common.postgresAs" -}}
{{- $root := index . 0 -}}
{{- $postgres := dict
  "host" "postgres" "port" 5432 "database" "vegamite" "username" "vegamite" "existingSecret" "" "passwordKey" "password"
  "urlSecret" "" "urlKey" "url" "sslMode" "" "tls" (dict "existingSecret" "" "caKey" "ca.crt")
-}}
{{- include "vegamite-common.overlay" (list $postgres (($root.Values.global | default dict).postgres | default dict)) -}}
{{- include "vegamite-common.overlay" (list $postgres ($root.Values.postgres | default dict)) -}}
{{- if include "vegamite-common.quickstart" $root -}}
  {{- $name := include "vegamite-common.partName" (list $root "postgres") -}}
  {{- $_ := set $postgres "host" (include "vegamite-common.quickstartHost" (list $root "postgres")) -}}
  {{- $_ := set $postgres "existingSecret" $name -}}
{{- else -}}
  {{- $own := index . 1 -}}
  {{- if or $own.existingSecret $own.username -}}
    {{- /* Another user's password is another: none of the service's may be shown to it. */ -}}
    {{- $_ := set $postgres "urlSecret" "" -}}
    {{- $_ := set $postgres "existingSecret" "" -}}
  {{- end -}}
  {{- include "vegamite-common.overlay" (list $postgres $own) -}}
{{- end -}}
{{- if and $postgres.tls.existingSecret (not $postgres.sslMode) -}}
  {{- $_ := set $postgres "sslMode" "verify-full" -}}
{{- end -}}
{{- $postgres | toJson -}}
{{- end -}}

{{/* The name at which a server of the quickstart is called, of (list root part). */}}
{{- define "vegamite-common.quickstartHost" -}}
{{- $root := index . 0 -}}
{{- printf "%s.%s.svc" (include "vegamite-common.partName" .) $root.Release.Namespace -}}
{{- end -}}

{{/* The address of the database, without the password, of the answer of `postgres`. */}}
{{- define "vegamite-common.postgresUrl" -}}
{{- $query := list -}}
{{- if .sslMode }}{{ $query = append $query (print "sslmode=" .sslMode) }}{{ end -}}
{{- if .tls.existingSecret }}{{ $query = append $query "sslrootcert=/etc/vegamite/tls/postgres/ca.crt" }}{{ end -}}
{{- $host := .host -}}
{{- if contains ":" $host }}{{ $host = printf "[%s]" $host }}{{ end -}}
{{- printf "postgresql://%s@%s:%d/%s" (.username | replace "@" "%40") $host (int .port) .database -}}
{{- with $query }}?{{ join "&" . }}{{ end -}}
{{- end -}}

{{/* The ports that Kafka's addresses name, as a JSON list of whole numbers. */}}
{{- define "vegamite-common.kafkaPorts" -}}
{{- $ports := list -}}
{{- range splitList "," .bootstrapServers -}}
  {{- $ports = append $ports (. | trim | splitList ":" | last | int) -}}
{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end -}}

{{/* The tables of vegamite.toml, of (dict root postgres): what follows from the values, and `config` over it. */}}
{{- define "vegamite-common.settings" -}}
{{- $root := .root -}}
{{- $chart := $root.Chart.Name -}}
{{- $kafka := include "vegamite-common.kafka" $root | fromJson -}}
{{- $bus := dict "bootstrap_servers" $kafka.bootstrapServers "client_id" (include "vegamite-common.fullname" $root)
  "security_protocol" $kafka.securityProtocol -}}
{{- if hasPrefix "SASL" $kafka.securityProtocol -}}
  {{- $_ := set $bus "sasl_mechanism" $kafka.sasl.mechanism -}}
  {{- $_ := set $bus "sasl_username" $kafka.sasl.username -}}
{{- end -}}
{{- if hasSuffix "SSL" $kafka.securityProtocol -}}
  {{- if $kafka.tls.existingSecret }}{{ $_ := set $bus "ssl_ca_file" "/etc/vegamite/tls/kafka/ca.crt" }}{{ end -}}
  {{- if $kafka.tls.certKey -}}
    {{- $_ := set $bus "ssl_cert_file" "/etc/vegamite/tls/kafka-client/tls.crt" -}}
    {{- $_ := set $bus "ssl_key_file" "/etc/vegamite/tls/kafka-client/tls.key" -}}
  {{- end -}}
{{- end -}}
{{- if eq $chart "aggregator" -}}
  {{- $topics := dict -}}
  {{- range $key, $value := $kafka.topics }}{{ $_ := set $topics (snakecase $key) $value }}{{ end -}}
  {{- $_ := set $bus "topics" $topics -}}
{{- end -}}
{{- $own := dict "management_host" "0.0.0.0" "management_port" 8001 -}}
{{- if and (eq $chart "aggregator") (not $root.influxdb) $root.Values.maintenance.archive.existingClaim -}}
  {{- $_ := set $own "archive" (dict "directory" $root.Values.maintenance.archive.path) -}}
{{- end -}}
{{- if eq $chart "api" -}}
  {{- $_ := set $own "host" "0.0.0.0" -}}
  {{- $_ := set $own "port" 8000 -}}
  {{- $_ := set $own "allowed_hosts" (include "vegamite-common.allowedHosts" $root | fromJsonArray) -}}
{{- end -}}
{{- if include "vegamite-common.quickstart" $root -}}
  {{- if eq $chart "api" }}{{ $_ := set $own "anonymous_read" true }}{{ end -}}
  {{- if eq $chart "collector" }}{{ $_ := set $own "demo" (dict "enabled" true) }}{{ end -}}
{{- end -}}
{{- $settings := dict "log" (dict "format" "json") "kafka" $bus $chart $own -}}
{{- if $root.influxdb -}}
  {{- $_ := set $settings "influxdb" (include "vegamite-common.influxdb" $root.influxdb | fromJson) -}}
{{- end -}}
{{- $unread := "influxdb" -}}
{{- if .postgres.urlSecret -}}
  {{- $_ := set $settings "postgres" dict -}}
{{- else if .postgres.host -}}
  {{- $_ := set $settings "postgres" (dict "url" (include "vegamite-common.postgresUrl" .postgres)) -}}
{{- end -}}
{{- /* Each has what it works with: what only the other one reads would replace its pods for nothing. */ -}}
{{- if $root.influxdb }}{{ $unread = ternary "" "postgres" (hasKey $settings "postgres") }}{{ end -}}
{{- $config := omit ($root.Values.config | default dict) $unread -}}
{{- include "vegamite-common.overlay" (list $settings $config) -}}
{{- $settings | toJson -}}
{{- end -}}

{{/* The table [influxdb], of the sink's values. */}}
{{- define "vegamite-common.influxdb" -}}
{{- $table := dict "url" .url "org" .org "bucket" .bucket "downsampled_bucket" .downsampledBucket
  "retention_days" .retentionDays "downsampled_retention_days" .downsampledRetentionDays
  "read_revised" .readRevised -}}
{{- if .tls.existingSecret }}{{ $_ := set $table "ssl_ca_file" "/etc/vegamite/tls/influxdb/ca.crt" }}{{ end -}}
{{- $table | toJson -}}
{{- end -}}

{{/* The names by which clients may call the api, as a JSON list. */}}
{{- define "vegamite-common.allowedHosts" -}}
{{- $name := include "vegamite-common.fullname" . -}}
{{- $namespace := .Release.Namespace -}}
{{- $hosts := list "localhost" "127.0.0.1" "::1" $name (printf "%s.%s" $name $namespace) (printf "%s.%s.svc" $name $namespace)
  (printf "%s.%s.svc.%s" $name $namespace (include "vegamite-common.clusterDomain" .)) -}}
{{- if .Values.ingress.enabled -}}
  {{- range .Values.ingress.hosts }}{{ $hosts = append $hosts .host }}{{ end -}}
{{- end -}}
{{- if .Values.httpRoute.enabled -}}
  {{- $hosts = concat $hosts .Values.httpRoute.hostnames -}}
{{- end -}}
{{- concat $hosts .Values.allowedHosts | uniq | toJson -}}
{{- end -}}
