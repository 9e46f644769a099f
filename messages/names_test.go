package messages

import (
	"strings"
	"testing"
)

func TestCheckName(t *testing.T) {
	good := []string{"a", "Z", "7", "r1", "robot-1", "hall_2", "a-_b", strings.Repeat("x", MaxName), "TASK", "main"}
	for _, name := range good {
		if err := CheckName("agent", name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	bad := []struct{ name, why string }{
		{"", "it is empty"},
		{strings.Repeat("x", MaxName+1), "it has 65 bytes"},
		{strings.Repeat("x", 1<<20), "it has 1048576 bytes"},
		{"*", `character 1 is '*'`},
		{">", `character 1 is '>'`},
		{"a.b", `character 2 is '.'`},
		{"a b", `character 2 is ' '`},
		{"a\tb", `character 2 is '\t'`},
		{"a\nb", `character 2 is '\n'`},
		{"a\x00b", `character 2 is '\x00'`},
		{"a/b", `character 2 is '/'`},
		{"a$", `character 2 is '$'`},
		{"é", "character 1 is"},
		{"\xff", "character 1 is"},
		{"-a", "starts or ends"},
		{"a_", "starts or ends"},
		{"_fleet", "starts or ends"},
		{"a__b", `contains "__"`},
	}
	for _, tc := range bad {
		err := CheckName("agent", tc.name)
		if CodeOf(err) != CodeBadRequest {
			t.Errorf("%q: %v", tc.name, err)
			continue
		}
		text := err.Error()
		if !strings.Contains(text, tc.why) || !strings.Contains(text, "agent name") || !strings.Contains(text, "allowed are") {
			t.Errorf("%q: %s", tc.name, text)
		}
		if len(text) > 500 || strings.Contains(text, "\n") {
			t.Errorf("%q: not one short line: %d bytes", tc.name, len(text))
		}
	}
	if CheckName("site", FleetSite) == nil {
		t.Error("a site may be called like the place of what has none")
	}
}
