{{/* The small objects that stand around a service. */}}

{{- define "vegamite-common.serviceAccount" -}}
{{- if and .Values.enabled .Values.serviceAccount.create -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "vegamite-common.metadata" (dict "root" . "name" (include "vegamite-common.serviceAccountName" .) "component" .Chart.Name
    "annotations" .Values.serviceAccount.annotations) | nindent 2 }}
automountServiceAccountToken: false
{{- end -}}
{{- end -}}

{{- define "vegamite-common.configMap" -}}
{{- if .Values.enabled -}}
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "vegamite-common.metadata" (dict "root" . "name" (include "vegamite-common.fullname" .)
    "component" (include "vegamite-common.component" .)) | nindent 2 }}
data:
  {{- if include "vegamite-common.scalerUser" . }}
  # For the scaler, which takes the name only from an object.
  kafka-username: {{ (include "vegamite-common.kafka" . | fromJson).sasl.username | quote }}
  {{- end }}
  vegamite.toml: |
    {{- include "vegamite-common.toml" (dict "root" . "postgres" (include "vegamite-common.postgres" . | fromJson)) | trim | nindent 4 }}
{{- end -}}
{{- end -}}

{{/* Where /healthz, /readyz and /metrics are had inside the cluster; nothing outside leads here. */}}
{{- define "vegamite-common.managementService" -}}
{{- if .Values.enabled -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "vegamite-common.metadata" (dict "root" . "name" (printf "%s-management" (include "vegamite-common.fullname" .))
    "component" (include "vegamite-common.component" .) "labels" (dict "vegamite.io/port" "management")) | nindent 2 }}
spec:
  clusterIP: None
  ports:
    - name: management
      port: 8001
      targetPort: management
      protocol: TCP
  selector:
    {{- include "vegamite-common.selector" (list . (include "vegamite-common.component" .)) | nindent 4 }}
{{- end -}}
{{- end -}}

{{- define "vegamite-common.httpService" -}}
{{- if .Values.enabled -}}
{{- $service := .Values.service -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "vegamite-common.metadata" (dict "root" . "name" (include "vegamite-common.fullname" .) "component" .Chart.Name
    "annotations" $service.annotations "labels" (dict "vegamite.io/port" "http")) | nindent 2 }}
spec:
  type: {{ $service.type }}
  {{- with $service.loadBalancerSourceRanges }}
  loadBalancerSourceRanges:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    - name: http
      port: {{ int $service.port }}
      targetPort: http
      protocol: TCP
      {{- if and $service.nodePort (ne $service.type "ClusterIP") }}
      nodePort: {{ int $service.nodePort }}
      {{- end }}
  selector:
    {{- include "vegamite-common.selector" (list . .Chart.Name) | nindent 4 }}
{{- end -}}
{{- end -}}

{{/* Only where more than one pod runs: a budget over a single one would hold up every drain of its node. */}}
{{- define "vegamite-common.podDisruptionBudget" -}}
{{- if and .Values.enabled .Values.pdb.enabled (gt (include "vegamite-common.leastReplicas" . | int) 1) -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "vegamite-common.metadata" (dict "root" . "name" (include "vegamite-common.fullname" .)
    "component" (include "vegamite-common.component" .)) | nindent 2 }}
spec:
  maxUnavailable: {{ .Values.pdb.maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "vegamite-common.selector" (list . (include "vegamite-common.component" .)) | nindent 6 }}
{{- end -}}
{{- end -}}

{{- define "vegamite-common.ingress" -}}
{{- if and .Values.enabled .Values.ingress.enabled -}}
{{- $ingress := .Values.ingress -}}
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  {{- include "vegamite-common.metadata" (dict "root" . "name" (include "vegamite-common.fullname" .) "component" .Chart.Name
    "annotations" $ingress.annotations) | nindent 2 }}
spec:
  {{- with $ingress.className }}
  ingressClassName: {{ . }}
  {{- end }}
  {{- with $ingress.tls }}
  tls:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  rules:
    {{- range $ingress.hosts }}
    - host: {{ .host | quote }}
      http:
        paths:
          - path: {{ .path | default "/" }}
            pathType: Prefix
            backend:
              service:
                name: {{ include "vegamite-common.fullname" $ }}
                port:
                  name: http
    {{- end }}
{{- end -}}
{{- end -}}

{{/* A request has no time limit of the gateway's here: a WebSocket is one request, for hours. */}}
{{- define "vegamite-common.httpRoute" -}}
{{- if and .Values.enabled .Values.httpRoute.enabled -}}
{{- $route := .Values.httpRoute -}}
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  {{- include "vegamite-common.metadata" (dict "root" . "name" (include "vegamite-common.fullname" .) "component" .Chart.Name
    "annotations" $route.annotations) | nindent 2 }}
spec:
  parentRefs:
    {{- toYaml $route.parentRefs | nindent 4 }}
  hostnames:
    {{- toYaml $route.hostnames | nindent 4 }}
  rules:
    - matches:
        - path:
            type: PathPrefix
            value: /
      {{- with $route.timeouts }}
      timeouts:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      backendRefs:
        - name: {{ include "vegamite-common.fullname" . }}
          port: {{ int .Values.service.port }}
{{- end -}}
{{- end -}}
