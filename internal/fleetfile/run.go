package fleetfile

import (
	"strings"

	"github.com/fleetbus/fleetbus/messages"
	"go.yaml.in/yaml/v3"
)

// run reads what a task brings; keys gets the nodes of its fields, as run.….
func (d *decoder) run(into **messages.Run, keys map[string]*yaml.Node) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		var r messages.Run
		var serve string
		before := len(d.errs)
		text := func(string) error { return nil } // messages.Run.Check says what is wrong with it
		fields := d.object(n, path, []field{
			{"artifact", d.text(&r.Artifact, "a SHA-256 in hex", text)},
			{"command", d.words(&r.Command)},
			{"env", d.labels(&r.Env)},
			{"serve", d.text(&serve, "exec, http, oip or openpi", func(s string) error {
				var ways []string
				for _, w := range messages.Serves() {
					ways = append(ways, string(w))
				}
				return oneOf(s, ways...)
			})},
			{"url", d.text(&r.URL, "a URL on loopback", text)},
			{"ready_url", d.text(&r.ReadyURL, "a URL on loopback", text)},
			{"ready_timeout", d.quantity(&r.ReadyTimeout, Duration, messages.MaxRunReady)},
			{"hang_timeout", d.quantity(&r.HangTimeout, Duration, messages.MaxRunReady)},
			{"warmup", d.text(&r.Warmup, "a SHA-256 in hex", text)},
			{"sessions", d.flag(&r.Sessions)},
			{"stop_timeout", d.quantity(&r.StopTimeout, Duration, messages.MaxRunStop)},
		})
		d.require(n, path, fields, "command", "a list of words, the program first")
		r.Serve = messages.Serve(serve)
		for k, v := range fields {
			keys["run."+k] = v
		}
		if len(d.errs) > before {
			return
		}
		*into = &r // task checks it, and finds the line
	}
}

// words reads a list of texts.
func (d *decoder) words(into *[]string) func(*yaml.Node, string) {
	return func(n *yaml.Node, path string) {
		if f := follow(n); f.Kind == yaml.ScalarNode && f.Tag != "!!null" {
			d.fail(n, path, "found %s, expected a list of words, like [%s]; no shell takes it apart", describe(f), strings.Join(strings.Fields(shorten(f.Value)), ", "))
			return
		}
		d.list(n, path, func(n *yaml.Node, path string) {
			var s string
			d.text(&s, "a text", func(string) error { return nil })(n, path)
			*into = append(*into, s)
		})
	}
}
