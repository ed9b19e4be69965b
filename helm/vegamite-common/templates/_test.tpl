{{/*
The pod of `helm test`: (dict root command env resources). It runs the service's image, is removed where it succeeds, and stays with its
log where it fails.
*/}}
{{- define "vegamite-common.testPod" -}}
{{- $root := .root -}}
{{- if and $root.Values.enabled $root.Values.tests.enabled -}}
{{- $name := printf "%s-test" (include "vegamite-common.fullname" $root) -}}
{{- $hook := dict "helm.sh/hook" "test" "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded"
  "helm.sh/hook-output-log-policy" "hook-failed,hook-succeeded" -}}
apiVersion: v1
kind: Pod
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "vegamite-common.labels" (list $root "test") | nindent 4 }}
  annotations:
    {{- toYaml $hook | nindent 4 }}
spec:
  activeDeadlineSeconds: {{ int $root.Values.tests.deadlineSeconds }}
  {{- include "vegamite-common.podSpec" (dict "root" $root "component" "test" "command" .command "args" .args "env" .env "restartPolicy" "Never"
    "accountName" (include "vegamite-common.serviceAccountName" $root) "resources" $root.Values.tests.resources) | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* The test of a consumer: alive, ready, and telling its figures, within the time that the values allow. */}}
{{- define "vegamite-common.managementTest" -}}
{{- $address := printf "http://%s-management.%s.svc:8001" (include "vegamite-common.fullname" .) .Release.Namespace -}}
{{- $program := include "vegamite-common.managementProgram" . -}}
{{- include "vegamite-common.testPod" (dict "root" . "command" (list "python" "-c" $program)
  "args" (list $address (print "vegamite_" .Chart.Name "_") (toString .Values.tests.waitSeconds))) -}}
{{- end -}}

{{- define "vegamite-common.managementProgram" -}}
import sys, time, urllib.request

address, prefix, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
deadline = time.monotonic() + seconds
for path, expected in (("/healthz", "ok"), ("/readyz", "ok"), ("/metrics", prefix)):
    while True:
        try:
            with urllib.request.urlopen(address + path, timeout=5) as response:
                text = response.read().decode()
            if expected not in text:
                sys.exit(f"{path} answers without {expected!r}")
            break
        except OSError as error:
            if time.monotonic() > deadline:
                sys.exit(f"{path}: {error}")
            time.sleep(1)
    print(f"{path}: {expected}")
{{- end -}}
