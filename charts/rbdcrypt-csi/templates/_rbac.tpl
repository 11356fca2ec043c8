{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{/* The service account of a component as a subject. Takes (list root component). */}}
{{- define "rbdcrypt.subjects" -}}
{{- $root := index . 0 -}}
subjects:
  - kind: ServiceAccount
    name: {{ include "rbdcrypt.fullname" $root }}-{{ index . 1 }}
    namespace: {{ $root.Release.Namespace }}
{{- end -}}

{{/* A Role and its binding in each namespace whose Secrets a component may get.
     Takes (list root component secrets). */}}
{{- define "rbdcrypt.secretRoles" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $secrets := index . 2 -}}
{{- $name := printf "%s-%s-secrets" (include "rbdcrypt.fullname" $root) $component -}}
{{- range $secrets.namespaces }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}
  namespace: {{ . }}
  labels:
    {{- include "rbdcrypt.labels" (list $root $component) | nindent 4 }}
rules:
  # Passphrases and keys of volumes, each asked for by its name: nothing lists them.
  - apiGroups: [""]
    resources: [secrets]
    {{- with $secrets.names }}
    resourceNames:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    verbs: [get]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ . }}
  labels:
    {{- include "rbdcrypt.labels" (list $root $component) | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $name }}
{{ include "rbdcrypt.subjects" (list $root $component) }}
{{- end }}
{{- end -}}
