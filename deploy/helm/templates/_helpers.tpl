{{/* The labels of a component. */}}
{{- define "layersweep.labels" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Who a pod runs as. */}}
{{- define "layersweep.pod" -}}
automountServiceAccountToken: false
# Of a Service that is called layersweep the kubelet would make LAYERSWEEP_PORT=tcp://..., which is no port to listen on.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* What a container may do. */}}
{{- define "layersweep.container" -}}
securityContext:
  readOnlyRootFilesystem: true
  allowPrivilegeEscalation: false
  capabilities: {drop: [ALL]}
{{- end }}
