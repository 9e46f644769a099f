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

// Whatever a content type says, what is put behind it comes off again, and nothing else.
func FuzzParams(f *testing.F) {
	for _, s := range []string{"", "application/json", "a/b; c=d", "; inference-header-content-length=1", "x; model-version="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		rest, binary, version := TakeParams(in)
		if len(rest) > len(in) || in[:len(rest)] != rest {
			t.Fatalf("%q became %q", in, rest)
		}
		if again, b, v := TakeParams(AddParam(AddParam(rest, ParamVersion, "7"), ParamBinary, "12")); again != rest || b != "12" || v != "7" {
			// What is left of it may end in one of ours a second time, and then stays.
			if binary == "" && version == "" {
				t.Fatalf("%q came back as %q, %q, %q", rest, again, b, v)
			}
		}
	})
}
