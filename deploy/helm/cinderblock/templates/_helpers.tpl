{{- define "cinderblock.labels" -}}
app.kubernetes.io/name: cinder-backup
app.kubernetes.io/instance: {{ .Release.Name }}
application: cinder
component: backup
{{- end }}
