{{/* SPDX-License-Identifier: Apache-2.0 */}}
{{/* Names, labels and images; every helper takes the root unless it says otherwise. */}}

{{/* What the names of objects begin with. */}}
{{- define "rbdcrypt.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels by which pods are selected. Takes (list root component). */}}
{{- define "rbdcrypt.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- with index . 1 }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/* Labels of an object. Takes (list root component further), where "" is no component
     and `further` may be left out; the chart's own count more than those of values. */}}
{{- define "rbdcrypt.labels" -}}
{{- $root := index . 0 -}}
{{- $own := fromYaml (include "rbdcrypt.selectorLabels" .) -}}
{{- $_ := set $own "app.kubernetes.io/version" $root.Chart.AppVersion -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" $root.Release.Service -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_") -}}
{{- $further := dict -}}
{{- if gt (len .) 2 -}}
{{- $further = index . 2 | default dict -}}
{{- end -}}
{{- toYaml (merge $own $further $root.Values.commonLabels) -}}
{{- end -}}

{{/* `image` and `imagePullPolicy` of a container. Takes (list root image). */}}
{{- define "rbdcrypt.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $tag := $image.tag | default $root.Chart.AppVersion -}}
image: {{ ternary (printf "%s@%s" $image.repository $image.digest) (printf "%s:%s" $image.repository $tag) (ne $image.digest "") | quote }}
imagePullPolicy: {{ $image.pullPolicy | default $root.Values.imagePullPolicy }}
{{- end -}}

{{/* The path of the CSI socket as kubelet sees it. */}}
{{- define "rbdcrypt.kubeletSocket" -}}
{{- printf "%s/plugins/%s/csi.sock" .Values.paths.kubelet .Values.driverName -}}
{{- end -}}

{{/* "yes" where the API server knows VolumeSnapshotClasses, else nothing. */}}
{{- define "rbdcrypt.hasSnapshots" -}}
{{- if .Capabilities.APIVersions.Has "snapshot.storage.k8s.io/v1/VolumeSnapshotClass" -}}
yes
{{- else if .Capabilities.APIVersions.Has "snapshot.storage.k8s.io/v1" -}}
yes
{{- end -}}
{{- end -}}
