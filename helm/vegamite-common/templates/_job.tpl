{{/*
A Job that runs a command of the chart's image once: (dict root name component args configMap postgres resources backoffLimit
deadlineSeconds accountName [command] [annotations]). A failed one stays, with its log.
*/}}
{{- define "vegamite-common.job" -}}
{{- $root := .root -}}
apiVersion: batch/v1
kind: Job
metadata:
  {{- include "vegamite-common.metadata" . | nindent 2 }}
spec:
  backoffLimit: {{ int .backoffLimit }}
  activeDeadlineSeconds: {{ int .deadlineSeconds }}
  template:
    metadata:
      labels:
        {{- include "vegamite-common.podLabels" (list $root .component) | nindent 8 }}
    spec:
      {{- include "vegamite-common.podSpec" (merge (dict "restartPolicy" "Never") .) | nindent 6 }}
{{- end -}}

{{/*
The migration, of topics and schema. With a database from outside it runs as a hook before anything of the release changes, so that a
failed one stops an upgrade while the old version serves; it brings its own configuration and network policy, since the release's aren't
there yet. In a quickstart the database comes with the release: a hook would wait for it in vain, so there it is an ordinary Job, named
by revision because a Job can't be changed, and the services wait for what it makes.
*/}}
{{- define "vegamite-common.migration" -}}
{{- if and .Values.enabled .Values.migration.enabled -}}
{{- $name := printf "%s-migration" (include "vegamite-common.fullname" .) -}}
{{- $postgres := include "vegamite-common.postgresAs" (list . (.Values.migration.postgres | default dict)) | fromJson -}}
{{- $job := dict "root" . "name" $name "component" "migration" "configMap" $name "postgres" $postgres
  "args" (list "migrate" "--config" "/etc/vegamite/vegamite.toml") "resources" .Values.migration.resources
  "backoffLimit" .Values.migration.backoffLimit "deadlineSeconds" .Values.migration.deadlineSeconds -}}
{{- if include "vegamite-common.quickstart" . -}}
{{- $_ := set $job "configMap" (include "vegamite-common.fullname" .) -}}
{{- $_ := set $job "accountName" (include "vegamite-common.serviceAccountName" .) -}}
{{- /* The images of both servers may take minutes to come; each try waits two of them. */ -}}
{{- $_ := set $job "backoffLimit" 8 -}}
{{- $_ := set $job "deadlineSeconds" 1800 -}}
{{ include "vegamite-common.job" (merge (dict "name" (printf "%s-%d" $name .Release.Revision)) $job) }}
{{- if .Values.networkPolicy.enabled }}
---
{{ include "vegamite-common.jobNetworkPolicy" $job }}
{{- end }}
{{- else -}}
{{- include "vegamite-common.requireMigrationSecrets" (dict "root" . "postgres" $postgres "configMap" $name) -}}
{{- $hook := dict "helm.sh/hook" "pre-install,pre-upgrade" "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded" -}}
{{- $before := merge (dict "helm.sh/hook-weight" "-5") $hook -}}
{{- /* The release's account isn't there before the first installation; the migration needs nothing of it. */ -}}
{{- $_ := set $job "accountName" (ternary "default" (.Values.serviceAccount.name | default "default") .Values.serviceAccount.create) -}}
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "vegamite-common.metadata" (merge (dict "annotations" $before) $job) | nindent 2 }}
data:
  vegamite.toml: |
    {{- include "vegamite-common.toml" (dict "root" . "postgres" $postgres) | trim | nindent 4 }}
{{- if .Values.networkPolicy.enabled }}
---
{{ include "vegamite-common.jobNetworkPolicy" (merge (dict "annotations" $before) $job) }}
{{- end }}
---
{{ include "vegamite-common.job" (merge (dict "annotations" (merge (dict "helm.sh/hook-weight" "0" "helm.sh/hook-output-log-policy" "hook-failed") $hook)) $job) }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
Maintenance, by a schedule: time partitions ahead, retention, the archive. It works beside the running service with the service's own
configuration and login. Two never run at once, and one that was missed is made up for by the next.
*/}}
{{- define "vegamite-common.maintenance" -}}
{{- if and .Values.enabled .Values.maintenance.enabled -}}
{{- $maintenance := .Values.maintenance -}}
{{- /* Kubernetes adds 11 characters to a CronJob's name for each run: 52 are left. */ -}}
{{- $name := printf "%s-maintenance" (include "vegamite-common.shortened" (list (include "vegamite-common.fullname" .) 40)) -}}
{{- $postgres := include "vegamite-common.postgres" . | fromJson -}}
{{- $job := dict "root" . "name" $name "component" "maintenance" "configMap" (include "vegamite-common.fullname" .) "postgres" $postgres
  "args" (list "maintain" "--config" "/etc/vegamite/vegamite.toml") "resources" $maintenance.resources
  "accountName" (include "vegamite-common.serviceAccountName" .) "restartPolicy" "Never" -}}
{{- with $maintenance.archive.existingClaim -}}
{{- $_ := set $job "claim" (dict "name" "archive" "claim" . "path" $maintenance.archive.path) -}}
{{- end -}}
apiVersion: batch/v1
kind: CronJob
metadata:
  {{- include "vegamite-common.metadata" $job | nindent 2 }}
spec:
  schedule: {{ $maintenance.schedule | quote }}
  {{- with $maintenance.timeZone }}
  timeZone: {{ . | quote }}
  {{- end }}
  suspend: {{ $maintenance.suspend }}
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: {{ int $maintenance.startingDeadlineSeconds }}
  successfulJobsHistoryLimit: {{ int $maintenance.successfulJobsHistoryLimit }}
  failedJobsHistoryLimit: {{ int $maintenance.failedJobsHistoryLimit }}
  jobTemplate:
    metadata:
      labels:
        {{- include "vegamite-common.podLabels" (list . "maintenance") | nindent 8 }}
    spec:
      backoffLimit: {{ int $maintenance.backoffLimit }}
      activeDeadlineSeconds: {{ int $maintenance.deadlineSeconds }}
      template:
        metadata:
          labels:
            {{- include "vegamite-common.podLabels" (list . "maintenance") | nindent 12 }}
        spec:
          {{- include "vegamite-common.podSpec" $job | nindent 10 }}
{{- if .Values.networkPolicy.enabled }}
---
{{ include "vegamite-common.jobNetworkPolicy" $job }}
{{- end }}
{{- end -}}
{{- end -}}
