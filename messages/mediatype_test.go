package messages

import "testing"

func TestParams(t *testing.T) {
	for _, c := range []struct{ in, rest, binary, version string }{
		{"", "", "", ""},
		{"application/json", "application/json", "", ""},
		{"text/plain; charset=utf-8", "text/plain; charset=utf-8", "", ""},
		{AddParam("application/octet-stream", ParamBinary, "12"), "application/octet-stream", "12", ""},
		{AddParam(AddParam("", ParamBinary, "12"), ParamVersion, "3"), "", "12", "3"},
		{AddParam(AddParam("text/plain; charset=utf-8", ParamVersion, "3"), ParamBinary, "0"), "text/plain; charset=utf-8", "0", "3"},
		{AddParam(AddParam("a/b", ParamVersion, "3"), ParamVersion, "4"), "a/b; model-version=3", "", "4"},
	} {
		rest, binary, version := TakeParams(c.in)
		if rest != c.rest || binary != c.binary || version != c.version {
			t.Errorf("%q: %q, %q, %q", c.in, rest, binary, version)
		}
	}
}
