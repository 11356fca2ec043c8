{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{/* `to` of an egress rule. Takes a list of CIDRs; none stands for everywhere. */}}
{{- define "rbdcrypt.peers" -}}
{{- with . -}}
to:
  {{- range . }}
  - ipBlock:
      cidr: {{ . }}
  {{- end }}
{{- end -}}
{{- end -}}
