package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// defaultTimeout bounds one question to the server or the leader. It equals the time
// that bus gives one request to the JetStream API and one attempt to connect: less would
// give up before those have said why.
const defaultTimeout = 5 * time.Second

// defaultURL is where `fleetbus up` listens.
const defaultURL = "nats://127.0.0.1:4222"

// app holds the flags that all commands share.
type app struct {
	// Connection, under the names that the nats CLI gives them.
	server, context, creds, nkey string
	user, password, token        string
	tlsCert, tlsKey, tlsCA       string

	fleet, site string
	json        bool
	timeout     time.Duration
	logLevel    string
	logFormat   string

	started bool // a command began to run; see execute
}

// environment lists the variables that stand in for flags. The first block is the nats
// CLI's, so that one shell serves both.
var environment = map[string]string{
	"server": "NATS_URL", "context": "NATS_CONTEXT", "creds": "NATS_CREDS", "nkey": "NATS_NKEY",
	"user": "NATS_USER", "password": "NATS_PASSWORD", "token": "NATS_TOKEN",
	"tlscert": "NATS_CERT", "tlskey": "NATS_KEY", "tlsca": "NATS_CA",

	"fleet": "FLEETBUS_FLEET", "site": "FLEETBUS_SITE",
	"log-level": "FLEETBUS_LOG_LEVEL", "log-format": "FLEETBUS_LOG_FORMAT",
}

// flags defines the shared flags on the root command.
func (a *app) flags(root *cobra.Command) {
	f := root.PersistentFlags()
	text := func(p *string, name, short, value, usage string) {
		f.StringVarP(p, name, short, value, usage+envNote(name))
	}
	text(&a.server, "server", "s", "", "NATS server `URLs`, comma separated (default "+defaultURL+")")
	text(&a.context, "context", "", "", "NATS context `NAME`, as `nats context ls` shows them")
	text(&a.creds, "creds", "", "", "credentials `FILE`")
	text(&a.nkey, "nkey", "", "", "nkey seed `FILE`")
	text(&a.user, "user", "", "", "user `NAME`; without a password it is a token")
	text(&a.password, "password", "", "", "`PASSWORD` of the user")
	text(&a.token, "token", "", "", "authorization `TOKEN`")
	text(&a.tlsCert, "tlscert", "", "", "TLS certificate `FILE`")
	text(&a.tlsKey, "tlskey", "", "", "TLS private key `FILE`")
	text(&a.tlsCA, "tlsca", "", "", "TLS certificate authority `FILE`")
	text(&a.fleet, "fleet", "", "fleet", "`NAME` of the fleet")
	text(&a.site, "site", "", messages.DefaultSite, "`NAME` of the site: environments that are near each other")
	f.BoolVar(&a.json, "json", false, "print JSON")
	f.DurationVar(&a.timeout, "timeout", defaultTimeout, "how long to wait for the server or the leader")
	text(&a.logLevel, "log-level", "", "", "debug, info, warn or error (default info for servers and agents, else warn)")
	text(&a.logFormat, "log-format", "", "text", "text or json")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return a.complete(cmd.Flags()) }
	root.SetFlagErrorFunc(flagError)
}

// noArgs refuses arguments; cobra's own would call them unknown commands.
func noArgs(cmd *cobra.Command, args []string) error { return exactArgs()(cmd, args) }

// exactArgs wants one argument for each name.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return fmt.Errorf("%s: %s is missing; usage: %s", cmd.CommandPath(), names[len(args)], cmd.UseLine())
		case len(args) > len(names):
			return fmt.Errorf("%s: found the argument %q too many; usage: %s", cmd.CommandPath(), args[len(names)], cmd.UseLine())
		}
		return nil
	}
}

// flagError says what is wrong with a flag as all our errors do: the field, what was
// found, what is allowed.
func flagError(cmd *cobra.Command, err error) error {
	// Of `fleetbus aply -f x` the wrong word is the command: its flags are wrong only
	// because nobody knows it. What stands before the flag is parsed already.
	if cmd.HasSubCommands() {
		if unknown := knownCommand(cmd, cmd.Flags().Args()); unknown != nil {
			return unknown
		}
	}
	var value *pflag.InvalidValueError
	if !errors.As(err, &value) {
		return fmt.Errorf("%w; `%s --help` lists the flags", err, cmd.CommandPath())
	}
	flag, cause := value.GetFlag(), errors.Unwrap(value)
	if ours := cause.Error(); strings.HasPrefix(ours, "found ") {
		return fmt.Errorf("--%s: %s", flag.Name, ours)
	}
	return fmt.Errorf("--%s: found %q, expected %s", flag.Name, value.GetValue(), expected(flag))
}

// expected describes the values of the flag package's own types.
func expected(flag *pflag.Flag) string {
	switch flag.Value.Type() {
	case "duration":
		return "a time with a unit, for example 500ms, 10s or 2m"
	case "int":
		return "a whole number"
	case "uint64":
		return "a whole number from 0"
	case "float64":
		return "a number"
	case "bool":
		return "true or false"
	}
	return "a " + flag.Value.Type()
}

func envNote(flag string) string {
	if v := environment[flag]; v != "" {
		return " [$" + v + "]"
	}
	return ""
}

// complete fills in from the environment what no flag says, and checks the rest. The
// environment is not made the flags' default: help would print a password.
func (a *app) complete(f *pflag.FlagSet) error {
	for name, variable := range environment {
		flag := f.Lookup(name)
		if v := os.Getenv(variable); v != "" && flag != nil && !flag.Changed {
			if err := flag.Value.Set(v); err != nil {
				return usagef("$%s: %v", variable, err)
			}
		}
	}
	if err := messages.CheckName("fleet", a.fleet); err != nil {
		return err
	}
	if err := messages.CheckName("site", a.site); err != nil {
		return err
	}
	if a.timeout <= 0 {
		return usagef("--timeout: found %v, allowed is more than 0", a.timeout)
	}
	if _, err := a.logger(slog.LevelInfo, nil); err != nil {
		return err
	}
	switch {
	case a.password != "" && a.user == "":
		return usagef("--password: found one without --user; name the user too")
	case (a.tlsCert == "") != (a.tlsKey == ""):
		return usagef("--tlscert, --tlskey: found one without the other; a certificate needs its key")
	}
	return nil
}
