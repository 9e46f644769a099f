package messages

import (
	"math"
	"slices"
)

// Environment is one machine that an agent speaks for, as the planner sees it.
type Environment struct {
	ID       string            `msgpack:"id" json:"id"` // the agent's id
	Tier     Tier              `msgpack:"t" json:"tier"`
	Site     string            `msgpack:"si" json:"site"` // "" means DefaultSite
	Labels   map[string]string `msgpack:"l,omitempty" json:"labels,omitempty"`
	Capacity Resources         `msgpack:"c" json:"capacity"`
	Latency  float64           `msgpack:"la" json:"latency_ms"`                   // ms from the requester to it
	Price    float64           `msgpack:"p" json:"price_per_hour"`                // currency per hour
	Billing  Billing           `msgpack:"b" json:"billing"`                       // "" means Share
	Handlers []string          `msgpack:"h" json:"handlers"`                      // what it can serve; AnyHandler for all
	Runs     bool              `msgpack:"ru,omitempty" json:"runs,omitempty"`     // it starts what tasks bring (Task.Run)
	Offline  bool              `msgpack:"-" json:"-"`                             // plan -f: nothing is known of handlers
	Version  string            `msgpack:"ver,omitempty" json:"version,omitempty"` // of the agent's program
}

// AnyHandler in Environment.Handlers says that every task can be served there.
const AnyHandler = "*"

// Normal returns e with the defaults filled in.
func (e Environment) Normal() Environment {
	if e.Site == "" {
		e.Site = DefaultSite
	}
	if e.Billing == "" {
		e.Billing = Share
	}
	return e
}

// Serves reports whether e can serve the handler.
func (e Environment) Serves(handler string) bool {
	return e.Offline || slices.Contains(e.Handlers, handler) || slices.Contains(e.Handlers, AnyHandler)
}

// Takes reports whether e has what serves t: its handler, or the leave of its owner to
// start what t brings.
func (e Environment) Takes(t Task) bool {
	if t.Run != nil {
		return e.Offline || e.Runs
	}
	return e.Serves(t.HandlerName())
}

// Check returns the first thing wrong with e, naming the field under the prefix.
func (e Environment) Check(prefix string) error {
	e = e.Normal()
	if err := CheckName(prefix+"id", e.ID); err != nil {
		return err
	}
	if err := e.Tier.Check(prefix + "tier"); err != nil {
		return err
	}
	if err := CheckName(prefix+"site", e.Site); err != nil {
		return err
	}
	if err := e.Capacity.Check(prefix); err != nil {
		return err
	}
	if err := CheckAmount(prefix+"latency", e.Latency, 0, math.MaxFloat64, "ms"); err != nil {
		return err
	}
	if err := CheckAmount(prefix+"price", e.Price, 0, math.MaxFloat64, "per hour"); err != nil {
		return err
	}
	for _, h := range e.Handlers {
		if h != AnyHandler {
			if err := CheckName(prefix+"handlers", h); err != nil {
				return err
			}
		}
	}
	return e.Billing.Check(prefix + "billing")
}

// Registration is what an agent writes under its id in the agents bucket when it
// starts. The revision of that write is its [Incarnation].
type Registration struct {
	V           int         `msgpack:"v"`
	Environment Environment `msgpack:"e"`
}
