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

{{/* The test of a consumer, and of the sink beside it: alive, ready, and telling its figures, within the time that the values allow. */}}
{{- define "vegamite-common.managementTest" -}}
{{- $names := list (include "vegamite-common.fullname" .) -}}
{{- if (.Values.sink | default dict).enabled -}}
  {{- $sink := dict -}}
  {{- include "vegamite-common.asSink" (list . $sink) -}}
  {{- $names = append $names (include "vegamite-common.fullname" $sink) -}}
{{- end -}}
{{- $addresses := list -}}
{{- range $names }}{{ $addresses = append $addresses (printf "http://%s-management.%s.svc:8001" . $.Release.Namespace) }}{{ end -}}
{{- $program := include "vegamite-common.managementProgram" . -}}
{{- include "vegamite-common.testPod" (dict "root" . "command" (list "python" "-c" $program)
  "args" (concat (list (print "vegamite_" .Chart.Name "_") (toString .Values.tests.waitSeconds)) $addresses)) -}}
{{- end -}}

{{- define "vegamite-common.managementProgram" -}}
import sys, time, urllib.request

prefix, seconds, addresses = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
deadline = time.monotonic() + seconds
expectations = (("/healthz", "ok"), ("/readyz", "ok"), ("/metrics", prefix))
for url, expected in [(address + path, word) for address in addresses for path, word in expectations]:
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                text = response.read().decode()
            if expected not in text:
                sys.exit(f"{url} answers without {expected!r}")
            break
        except OSError as error:
            if time.monotonic() > deadline:
                sys.exit(f"{url}: {error}")
            time.sleep(1)
    print(f"{url}: {expected}")
{{- end -}}
