package messages

import "strings"

// Parameters that fleetbus adds to a content type, for what an HTTP request says beside its
// body: a content type is all that travels with one. Whoever speaks HTTP makes headers and
// paths of them again, so the model server and its client see what they would see of each
// other.
const (
	// ParamBinary is the header Inference-Header-Content-Length of the Open Inference
	// Protocol's binary extension: how many bytes of JSON the body begins with.
	ParamBinary = "inference-header-content-length"
	// ParamVersion is the version of the model that the path of a request named.
	ParamVersion = "model-version"
)

// AddParam appends a parameter to a content type.
func AddParam(contentType, name, value string) string {
	return contentType + "; " + name + "=" + value
}

// TakeParams takes the parameters that fleetbus has added off a content type, which is then
// byte for byte what it was before. Absent ones are "".
func TakeParams(contentType string) (rest, binary, version string) {
	for rest = contentType; ; {
		i := strings.LastIndex(rest, "; ")
		if i < 0 {
			return rest, binary, version
		}
		name, value, _ := strings.Cut(rest[i+2:], "=")
		switch {
		case name == ParamBinary && binary == "":
			binary = value
		case name == ParamVersion && version == "":
			version = value
		default:
			return rest, binary, version
		}
		rest = rest[:i]
	}
}
