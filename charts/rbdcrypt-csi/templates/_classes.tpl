{{/* SPDX-License-Identifier: Apache-2.0 */}}
{{/* Classes of storage and limits, and that they cannot be changed. */}}

{{/* What Kubernetes never lets be changed in a StorageClass. Takes a class of the values.
     The Secret is named once and sent with the calls that read it: CreateVolume,
     NodeStageVolume, and NodePublishVolume, which stages again what a dead datapath
     has lost. No other call of this driver reads one. */}}
{{- define "rbdcrypt.classFixed" }}
parameters:
  {{- range $name, $text := .parameters }}
  {{ $name }}: {{ $text | quote }}
  {{- end }}
  {{- with .secret }}
  {{- $secret := . }}
  {{- range $call := list "provisioner" "node-stage" "node-publish" }}
  csi.storage.k8s.io/{{ $call }}-secret-name: {{ $secret.name | quote }}
  csi.storage.k8s.io/{{ $call }}-secret-namespace: {{ $secret.namespace | quote }}
  {{- end }}
  {{- end }}
reclaimPolicy: {{ .reclaimPolicy | default "Delete" }}
volumeBindingMode: {{ .volumeBindingMode | default "Immediate" }}
{{- end -}}

{{/* An upgrade that the API server would refuse half way is refused before it begins. */}}
{{- define "rbdcrypt.checkChangedClasses" -}}
{{- range $index, $class := .Values.storageClasses -}}
{{- $there := lookup "storage.k8s.io/v1" "StorageClass" "" .name -}}
{{- range $field, $wanted := ternary (include "rbdcrypt.classFixed" . | fromYaml) dict (not (empty $there)) -}}
{{- include "rbdcrypt.checkUnchanged" (list (printf "storageClasses.%d" $index) $class.name $field $wanted (get $there $field)) -}}
{{- end -}}
{{- end -}}
{{- range $index, $class := .Values.volumeAttributesClasses -}}
{{- $there := lookup "storage.k8s.io/v1" "VolumeAttributesClass" "" .name -}}
{{- if $there -}}
{{- include "rbdcrypt.checkUnchanged" (list (printf "volumeAttributesClasses.%d" $index) $class.name "parameters" $class.parameters $there.parameters) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Takes (list place name field wanted there). */}}
{{- define "rbdcrypt.checkUnchanged" -}}
{{- $wanted := index . 3 | default dict -}}
{{- $there := index . 4 | default dict -}}
{{- if ne ($wanted | toJson) ($there | toJson) -}}
{{- fail (printf "%s.%s: class %q is there with %s, and Kubernetes lets nobody change it to %s: keep it, and make a class of another name" (index . 0) (index . 2) (index . 1) ($there | toJson) ($wanted | toJson)) -}}
{{- end -}}
{{- end -}}
