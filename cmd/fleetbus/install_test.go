package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// aMachine is a machine of the test's own below a directory, with systemd, and what was run
// and said there.
type aMachine struct {
	*installer
	ran, said []string
}

func newMachine(t *testing.T) *aMachine {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"run/systemd/system", "etc/systemd/system"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m := &aMachine{}
	m.installer = &installer{
		name: "fleetbus-agent", user: "fleetbus", config: "/etc/fleetbus/agent.yaml", binary: filepath.Join(root, "here"), root: root, now: true,
		args: []string{"--server", "nats://edge:4222"}, drain: time.Minute,
		run: func(_ context.Context, name string, args ...string) error {
			m.ran = append(m.ran, strings.Join(append([]string{name}, args...), " "))
			return nil
		},
		who:  func(string) bool { return false },
		team: func(g string) bool { return g == "video" },
	}
	m.say = func(format string, args ...any) { m.said = append(m.said, fmt.Sprintf(format, args...)) }
	putFile(t, m.binary, "program 1")
	return m
}

func putFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestInstallAndUninstall(t *testing.T) {
	m := newMachine(t)
	if err := m.install(t.Context()); err != nil {
		t.Fatal(err)
	}
	unit := content(t, m.unitPath())
	for _, want := range []string{
		"ExecStart=/usr/local/bin/fleetbus agent --config /etc/fleetbus/agent.yaml --server nats://edge:4222\n", "User=fleetbus\n", "Restart=always\n",
		"TimeoutStopSec=70\n", "KillMode=mixed\n", "OOMPolicy=continue\n", "SupplementaryGroups=video\n", "WantedBy=multi-user.target\n",
	} {
		if !strings.Contains(unit, want) {
			t.Errorf("the unit has no %q:\n%s", want, unit)
		}
	}
	if content(t, m.path(m.target())) != "program 1" {
		t.Error("the program is not copied")
	}
	if info, err := os.Stat(m.path(m.target())); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the program cannot be run: %v, %v", info.Mode(), err)
	}
	want := []string{
		"useradd --system --user-group --no-create-home --home-dir /var/lib/fleetbus --shell /usr/sbin/nologin fleetbus",
		"systemctl daemon-reload", "systemctl enable fleetbus-agent", "systemctl restart fleetbus-agent",
	}
	if strings.Join(m.ran, "\n") != strings.Join(want, "\n") {
		t.Errorf("ran\n%s", strings.Join(m.ran, "\n"))
	}

	// Again: nothing has changed, so what runs goes on.
	m.ran, m.who = nil, func(string) bool { return true }
	if err := m.install(t.Context()); err != nil || strings.Join(m.ran, ", ") != "systemctl daemon-reload, systemctl enable fleetbus-agent, systemctl start fleetbus-agent" {
		t.Errorf("again: %v, ran %v", err, m.ran)
	}
	// A newer program, or other flags: it is started anew.
	m.ran = nil
	putFile(t, m.binary, "program 2")
	if err := m.install(t.Context()); err != nil || m.ran[2] != "systemctl restart fleetbus-agent" || content(t, m.path(m.target())) != "program 2" {
		t.Errorf("a newer program: %v, ran %v", err, m.ran)
	}
	m.ran, m.args = nil, nil
	if err := m.install(t.Context()); err != nil || m.ran[2] != "systemctl restart fleetbus-agent" || strings.Contains(content(t, m.unitPath()), "--server") {
		t.Errorf("other flags: %v, ran %v", err, m.ran)
	}

	m.ran = nil
	if err := m.uninstall(t.Context(), false); err != nil || strings.Join(m.ran, ", ") != "systemctl disable --now fleetbus-agent, systemctl daemon-reload" {
		t.Errorf("uninstall: %v, ran %v", err, m.ran)
	}
	if _, err := os.Stat(m.unitPath()); !os.IsNotExist(err) {
		t.Error("the unit is still there")
	}
	if err := m.uninstall(t.Context(), false); messages.CodeOf(err) != messages.CodeNotFound {
		t.Errorf("twice: %v", err)
	}
}

func TestInstallLeavesOthersAlone(t *testing.T) {
	for _, where := range []string{"etc/systemd/system/fleetbus-agent.service", "usr/lib/systemd/system/fleetbus-agent.service"} {
		m := newMachine(t)
		path := filepath.Join(m.root, where)
		putFile(t, path, "[Service]\nExecStart=/bin/true\n")
		for name, do := range map[string]func() error{
			"install":   func() error { return m.install(t.Context()) },
			"describe":  func() error { return m.describe(t.Context(), new(strings.Builder)) },
			"uninstall": func() error { return m.uninstall(t.Context(), false) },
		} {
			if err := do(); messages.CodeOf(err) != messages.CodeConflict || !strings.Contains(err.Error(), "--name") {
				t.Errorf("%s over %s: %v", name, where, err)
			}
		}
		if len(m.ran) > 0 || !strings.Contains(content(t, path), "/bin/true") {
			t.Errorf("it was touched: ran %v", m.ran)
		}
	}
}

func TestInstallNeedsSystemdAndRoot(t *testing.T) {
	m := newMachine(t)
	m.uid = 1000
	if err := m.install(t.Context()); messages.CodeOf(err) != messages.CodeUnauthorized {
		t.Errorf("not root: %v", err)
	}
	m.uid = 0
	if err := os.RemoveAll(filepath.Join(m.root, "run/systemd")); err != nil {
		t.Fatal(err)
	}
	if err := m.install(t.Context()); messages.CodeOf(err) != messages.CodeUnavailable || !strings.Contains(err.Error(), "container") {
		t.Errorf("without systemd: %v", err)
	}
	if len(m.ran) > 0 {
		t.Errorf("ran %v", m.ran)
	}
	var out strings.Builder
	if err := m.describe(t.Context(), &out); err != nil || !strings.Contains(out.String(), "ExecStart=") {
		t.Errorf("a look: %v\n%s", err, out.String())
	}
	if len(m.ran) > 0 || !strings.Contains(strings.Join(m.said, "\n"), "would run: useradd") {
		t.Errorf("a look: ran %v, said %v", m.ran, m.said)
	}
}

func TestUnitWords(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "a b": `"a b"`, "50%": "50%%", "$HOME": "$$HOME", `a"b\`: `"a\"b\\"`, "": `""`, "a;b": `"a;b"`, "two\nlines": `"two\nlines"`,
	} {
		if got := unitWord(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

// What was calibrated holds for the machine it was calibrated on.
func TestCalibrationFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "machine.yaml")
	c := calibration{compute: 0.25, model: `Some "CPU" @ 2.0GHz: x`, cores: 1.5}
	if err := c.write(path, time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	if got, err := readCalibration(path); err != nil || got != c {
		t.Errorf("got %+v, %v", got, err)
	}
	putFile(t, path, "model: x\n")
	if _, err := readCalibration(path); err == nil || !strings.Contains(err.Error(), "calibrate") {
		t.Errorf("without an amount: %v", err)
	}
}

func TestCommandCompute(t *testing.T) {
	for line, want := range map[string]float64{
		`sh -c 'echo warming; echo 41TFLOPS'`: 41, `sh -c 'echo 500GFLOPS'`: 0.5, `sh -c 'echo fast'`: 0, `sh -c 'echo no GPU >&2; exit 3'`: 0, `true`: 0, `'`: 0,
	} {
		got, err := commandCompute(t.Context(), line, time.Minute)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%s: got %v, %v", line, got, err)
		}
	}
	if _, err := commandCompute(t.Context(), `sh -c 'echo no GPU >&2; exit 3'`, time.Minute); !strings.Contains(err.Error(), "no GPU") {
		t.Errorf("what it said is lost: %v", err)
	}
	if _, err := commandCompute(t.Context(), "sleep 1000", 50*time.Millisecond); err == nil || !strings.Contains(err.Error(), "did not end within 50ms and was killed") {
		t.Errorf("one that hangs: %v", err)
	}
}

// The image is made of what `make dist` makes.
func TestContainerfile(t *testing.T) {
	file, makefile := content(t, "../../Containerfile"), content(t, "../../Makefile")
	for _, want := range []string{"COPY --chmod=0755 dist/fleetbus-linux-${TARGETARCH} /fleetbus\n", "ARG TARGETARCH\n", "ENV XDG_STATE_HOME=/state\n", "VOLUME /state\n", "USER 65532:65532\n"} {
		if !strings.Contains(file, want) {
			t.Errorf("Containerfile has no %q", want)
		}
	}
	if !strings.Contains(makefile, "for arch in amd64 arm64") || !strings.Contains(makefile, "-o dist/fleetbus-linux-$$arch") {
		t.Error("`make dist` does not make what the Containerfile copies")
	}
}
