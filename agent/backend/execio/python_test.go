package execio

import (
	"os/exec"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
)

// TestPythonExample runs examples/exec-python/echo.py. It needs python3.
func TestPythonExample(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal("this test runs examples/exec-python/echo.py and needs python3 in PATH: install it (`make deps` does)")
	}
	o, log := options("")
	o.Command, o.Env = []string{python, "../../../examples/exec-python/echo.py"}, nil
	c := open(t, o)
	log.until(t, "loading the model of task detect")
	for _, body := range []string{"hello", "", "\x00\xff\n"} {
		if got, err := ask(t, c, body); err != nil || got != body {
			t.Errorf("%q: %q, %v", body, got, err)
		}
	}
	_, err = ask(t, c, "fail")
	wantError(t, err, messages.CodeBackendFailed, "asked to fail")
	if got, err := ask(t, c, "still there"); err != nil || got != "still there" {
		t.Errorf("%q, %v", got, err)
	}
}
