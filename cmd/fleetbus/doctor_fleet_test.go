package main

import (
	"strings"
	"testing"
)

// The doctor warns before the routes do not fit into a message, and when they do not.
func TestFullRoutes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		size, listed, replicas int
		want                   string
	}{
		{0, 0, 0, ""},
		{9500, 100, 100, ""},
		{95 * 8000, 8000, 8000, ""},
		{95 * 9000, 9000, 9000, "about 10951 replicas of 95 bytes; there are 9000"},
		{95 * 8000, 8000, 30000, "there are 30000"}, // what is saved is older: the rest did not fit
	} {
		got := fullRoutes(tc.size, tc.listed, tc.replicas)
		if (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%d bytes, %d of %d replicas: %q, want %q", tc.size, tc.listed, tc.replicas, got, tc.want)
		}
	}
}
