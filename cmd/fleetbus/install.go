package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// installDir is where the program is put when it runs from elsewhere.
const installDir = "/usr/local/bin"

// installer puts an agent onto a machine that systemd runs. What it does to the machine
// goes through run and files below root, so that tests have one of their own.
type installer struct {
	name, user, config, binary string
	args                       []string // for every start, after --config
	drain                      time.Duration
	now                        bool // start it, too

	root string // "" for the machine's
	run  func(ctx context.Context, name string, args ...string) error
	uid  int
	who  func(user string) bool // it exists
	team func(group string) bool
	say  func(format string, args ...any)
}

func installCmd(a *app) *cobra.Command {
	in := realInstaller()
	var dry, later bool
	cmd := &cobra.Command{
		Use:   "install --config FILE",
		Short: "Run an agent on this machine from now on, as a service of systemd",
		Long: `Run an agent on this machine from now on: as a service of systemd, under a user of its own,
started with the machine and again two seconds after it dies. --config names its file (see
` + "`fleetbus agent --help`" + `); the connection flags that you give here are the service's, too. A second run brings
an installed service up to date; a unit of that name that fleetbus has not written is left
alone. --dry-run prints the unit and what would be done. docs/machines.md has a Jetson and a plain
edge box from the beginning.`,
		Example: `  fleetbus agent install --config /etc/fleetbus/agent.yaml --server nats://edge.example:4222 --dry-run
  sudo fleetbus agent install --config /etc/fleetbus/agent.yaml --server nats://edge.example:4222
  sudo fleetbus agent uninstall`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			in.say, in.now = func(format string, args ...any) { printf(cmd, format+"\n", args...) }, !later
			if err := in.readConfig(cmd, a); err != nil {
				return err
			}
			if dry {
				return in.describe(cmd.Context(), cmd.OutOrStdout())
			}
			return in.install(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&in.config, "config", "", "YAML `FILE` of the agent")
	cmd.Flags().StringVar(&in.name, "name", "fleetbus-agent", "`NAME` of the service; give a second agent of the machine one of its own")
	cmd.Flags().StringVar(&in.user, "run-as", "fleetbus", "`USER` that runs it; made where it is not there")
	cmd.Flags().BoolVar(&later, "no-start", false, "do not start it now, only with the machine")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "print the unit and what would be done")
	return cmd
}

func uninstallCmd(*app) *cobra.Command {
	in := realInstaller()
	var dry bool
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Stop the service that `fleetbus agent install` made, and remove it",
		Long: `Stop the service that ` + "`fleetbus agent install`" + ` made and remove its unit. The agent finishes what
it has first. The program, the user, the agent's file and its data stay; the last line says where.`,
		Example: "  sudo fleetbus agent uninstall",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			in.say = func(format string, args ...any) { printf(cmd, format+"\n", args...) }
			if dry {
				in.run = in.only
				in.uid = 0
			}
			return in.uninstall(cmd.Context(), dry)
		},
	}
	cmd.Flags().StringVar(&in.name, "name", "fleetbus-agent", "`NAME` of the service")
	cmd.Flags().StringVar(&in.user, "run-as", "fleetbus", "`USER` that runs it")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "print what would be done")
	return cmd
}

func realInstaller() *installer {
	in := &installer{uid: os.Geteuid()}
	in.binary, _ = os.Executable() // without one the copy fails and says so
	in.run = func(ctx context.Context, name string, args ...string) error {
		out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
		if err != nil {
			return messages.Errorf(messages.CodeUnavailable, "%s %s: %v: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
		}
		return nil
	}
	in.who = func(name string) bool { _, err := user.Lookup(name); return err == nil }
	in.team = func(name string) bool { _, err := user.LookupGroup(name); return err == nil }
	return in
}

// only says what would be run.
func (in *installer) only(_ context.Context, name string, args ...string) error {
	in.say("would run: %s", strings.Join(append([]string{name}, args...), " "))
	return nil
}

// readConfig checks what the service will be started with, now, while somebody looks.
func (in *installer) readConfig(cmd *cobra.Command, a *app) error {
	if in.config == "" {
		return usagef("--config: none given; name the agent's file, for example /etc/fleetbus/agent.yaml (docs/machines.md has one)")
	}
	var err error
	if in.config, err = filepath.Abs(in.config); err != nil {
		return usageError{err}
	}
	g := agentFlags{labels: make(map[string]string), backends: newBackends()}
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	g.define(flags)
	flags.StringVar(&a.site, "site", a.site, "")
	if err := loadFlags(in.config, flags); err != nil {
		return fileError(cmd, err)
	}
	env, err := g.environment(a.site)
	if err != nil {
		return err
	}
	if err := g.together(env); err != nil {
		return err
	}
	if _, err := g.handlers(a.mustLog(cmd, 0)); err != nil {
		return err
	}
	in.drain = g.drain
	// Without the secrets: what stands in a unit, everybody can read.
	for _, name := range []string{"user", "password", "token"} {
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed {
			return usagef("--%s: it would stand in the unit, which everybody can read; use --creds FILE or --nkey FILE", name)
		}
	}
	if f := cmd.Flags().Lookup("server"); f != nil && f.Changed && strings.Contains(f.Value.String(), "@") {
		return usagef("--server: found one with credentials in it (…@…), which would stand in the unit, and everybody can read that; use --creds FILE or --nkey FILE")
	}
	for _, name := range []string{"server", "context", "creds", "nkey", "tlscert", "tlskey", "tlsca", "fleet", "site", "log-level", "log-format"} {
		f := cmd.Flags().Lookup(name)
		if f == nil || !f.Changed {
			continue
		}
		value := f.Value.String()
		if slices.Contains([]string{"creds", "nkey", "tlscert", "tlskey", "tlsca"}, name) { // a service has another directory
			if value, err = filepath.Abs(value); err != nil {
				return usageError{err}
			}
		}
		in.args = append(in.args, "--"+name, value)
	}
	return in.check()
}

var serviceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

func (in *installer) check() error {
	if !serviceName.MatchString(in.name) || strings.HasSuffix(in.name, ".service") {
		return usagef("--name: found %q, allowed are up to 64 letters, digits, dots, dashes and underscores, without .service", in.name)
	}
	if !regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`).MatchString(in.user) {
		return usagef("--run-as: found %q, allowed are up to 32 small letters, digits, dashes and underscores", in.user)
	}
	return nil
}

func (in *installer) path(parts ...string) string {
	return filepath.Join(append([]string{in.root, "/"}, parts...)...)
}

func (in *installer) unitPath() string { return in.path("etc/systemd/system", in.name+".service") }

// target is where the program will be.
func (in *installer) target() string { return filepath.Join(installDir, "fleetbus") }

// standing is what is there under our name; others' is an error.
func (in *installer) standing() (text string, err error) {
	data, err := os.ReadFile(in.unitPath())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", messages.Errorf(messages.CodeUnavailable, "read %s: %v", in.unitPath(), err)
	}
	if err == nil && !bytes.HasPrefix(data, []byte(unitMark)) {
		return "", messages.Errorf(messages.CodeConflict, "%s is there and fleetbus has not written it; give this service another --name, or remove that unit", in.unitPath())
	}
	for _, dir := range []string{"run/systemd/system", "usr/lib/systemd/system", "lib/systemd/system", "usr/local/lib/systemd/system"} {
		p := in.path(dir, in.name+".service")
		if _, gone := os.Stat(p); gone == nil {
			return "", messages.Errorf(messages.CodeConflict, "%s is there, of a package or another program; give this service another --name", p)
		}
	}
	return string(data), nil
}

// describe prints the unit, and what install would do beside writing it.
func (in *installer) describe(ctx context.Context, out io.Writer) error {
	before, err := in.standing()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "# %s\n%s\n", in.unitPath(), in.unit())
	in.run = in.only
	if in.needsCopy() {
		in.say("would copy: %s to %s", in.binary, in.target())
	}
	if err := in.addUser(ctx); err != nil {
		return err
	}
	if before == in.unit() {
		in.say("the unit is there already, as it is here")
	}
	return in.activate(ctx, true)
}

func (in *installer) ready() error {
	if runtime.GOOS != "linux" {
		return messages.Errorf(messages.CodeUnavailable, "services are made for systemd, on Linux; here run `fleetbus agent --config %s` by what starts programs on %s", in.config, runtime.GOOS)
	}
	if _, err := os.Stat(in.path("run/systemd/system")); err != nil {
		return messages.Errorf(messages.CodeUnavailable, "systemd does not run this machine (%v); in a container start `fleetbus agent` itself, see docs/machines.md", err)
	}
	if in.uid != 0 {
		return messages.Errorf(messages.CodeUnauthorized, "this writes to /etc and starts services; run it as root, for example with sudo, or look first with --dry-run")
	}
	return nil
}

func (in *installer) install(ctx context.Context) error {
	if err := in.ready(); err != nil {
		return err
	}
	before, err := in.standing()
	if err != nil {
		return err
	}
	copied := in.needsCopy()
	if copied {
		if err := copyProgram(in.binary, in.path(in.target())); err != nil {
			return messages.Errorf(messages.CodeUnavailable, "copy the program to %s: %v", in.target(), err)
		}
		in.say("copied: %s", in.target())
	}
	if err := in.addUser(ctx); err != nil {
		return err
	}
	changed := before != in.unit()
	if changed {
		if err := replaceFile(in.unitPath(), []byte(in.unit()), 0o644); err != nil {
			return messages.Errorf(messages.CodeUnavailable, "write %s: %v", in.unitPath(), err)
		}
		in.say("written: %s", in.unitPath())
	} else {
		in.say("unchanged: %s", in.unitPath())
	}
	if err := in.activate(ctx, changed || copied); err != nil {
		return err
	}
	in.say("its log: journalctl -u %s -f; its file is read when it starts: systemctl restart %s", in.name, in.name)
	return nil
}

// addUser makes the user where it is not there.
func (in *installer) addUser(ctx context.Context) error {
	if in.who(in.user) {
		return nil
	}
	if err := in.run(ctx, "useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/var/lib/fleetbus", "--shell", "/usr/sbin/nologin", in.user); err != nil {
		return err
	}
	in.say("user %s runs it; it must be able to read %s and what that names", in.user, in.config)
	return nil
}

// activate makes systemd read the unit and start it; again makes what runs already new.
func (in *installer) activate(ctx context.Context, again bool) error {
	steps := [][]string{{"daemon-reload"}, {"enable", in.name}}
	switch {
	case in.now && again:
		steps = append(steps, []string{"restart", in.name})
	case in.now:
		steps = append(steps, []string{"start", in.name})
	}
	for _, args := range steps {
		if err := in.run(ctx, "systemctl", args...); err != nil {
			return err
		}
	}
	return nil
}

func (in *installer) uninstall(ctx context.Context, dry bool) error {
	if err := in.check(); err != nil {
		return err
	}
	text, err := in.standing()
	if err != nil {
		return err
	}
	if text == "" {
		return messages.Errorf(messages.CodeNotFound, "%s is not there: nothing is installed under the name %s", in.unitPath(), in.name)
	}
	if !dry {
		if err := in.ready(); err != nil {
			return err
		}
	}
	if err := in.run(ctx, "systemctl", "disable", "--now", in.name); err != nil {
		return err
	}
	if dry {
		in.say("would remove: %s", in.unitPath())
	} else if err := os.Remove(in.unitPath()); err != nil {
		return messages.Errorf(messages.CodeUnavailable, "remove the unit: %v", err)
	}
	if err := in.run(ctx, "systemctl", "daemon-reload"); err != nil {
		return err
	}
	in.say("left: %s, /var/lib/fleetbus, the agent's file and user %s; `fleetbus drain` before it, and `fleetbus agents` after, show that nothing waits for it", in.target(), in.user)
	return nil
}

// needsCopy reports whether another program than this one is where the service starts it.
func (in *installer) needsCopy() bool {
	here, err := os.ReadFile(in.binary)
	if err != nil {
		return true // copyProgram says why
	}
	there, err := os.ReadFile(in.path(in.target()))
	return err != nil || !bytes.Equal(here, there)
}

func copyProgram(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return replaceFile(to, data, 0o755)
}

// replaceFile writes beside and renames: what runs keeps the old one, and nobody sees half.
func replaceFile(path string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // fails where it was renamed
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
