package oip

import (
	"net/http/httptest"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The stand-in passes its own run, and a fault that is planted in it does not.
func TestConform(t *testing.T) {
	for _, fault := range append(Faults(), "") {
		s := httptest.NewServer(&Server{Fault: fault})
		checks, wrong := Target{URL: s.URL, Model: Model, Client: s.Client()}.Conform(t.Context())
		s.Close()
		if fault == "" && len(wrong) > 0 {
			t.Errorf("%d checks: %q", checks, wrong)
		}
		if fault != "" && len(wrong) == 0 {
			t.Errorf("fault %q was not noticed in %d checks", fault, checks)
		}
	}
}
