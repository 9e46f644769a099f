package httpgate

import (
	"context"
	_ "embed" // the description of the API
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router"
	"github.com/fleetbus/fleetbus/router/gateway"
)

//go:embed openapi.yaml
var openAPI []byte

// The defaults of [Config]: 256 requests of 8 MB are 2 GB, the most that a door should ever
// hold; a thousand requests a second are more than one carries with large bodies.
const (
	DefaultMaxInFlight = 256
	DefaultRate        = 5000
)

// transferTime is how long a client may take to send a body, and to take an answer: 8 MB in it
// are 1.1 Mbit/s. Who is slower must not keep a place from others. maxDrain is how much of a
// body is read that is not wanted.
const (
	transferTime = time.Minute
	maxDrain     = 64 << 20
)

// roomForHeaders is what a message has beside the body, bytes; far more than it needs.
const roomForHeaders = 4096

// Config is what a door needs to know; all of it has defaults.
type Config struct {
	Keys        gateway.Keys // who may enter; the zero value: everybody
	MaxInFlight int          // requests at once, further ones are busy; 0: DefaultMaxInFlight
	MaxBody     int          // bytes of a request; 0: what fits into a message
	Rate        float64      // requests a second, further ones are busy; 0: DefaultRate

	Version   string      // of the program, for people
	Connected func() bool // whether there is a NATS server; nil: nobody knows

	Logger *slog.Logger // nil: slog.Default()

	transfer time.Duration // 0: transferTime; tests have less of it
}

// Gateway is the door. It is an http.Handler; [Gateway.Run] serves it.
type Gateway struct {
	c    *router.Client
	cfg  Config
	err  error // of the configuration
	room chan struct{}
	rate gateway.Bucket

	mu    sync.Mutex
	known map[string]described // by task: what its backend said of itself
}

// New makes a door that asks with c, which somebody else runs. maxPayload is that of c's
// connection. It starts nothing; a wrong Config is reported by Run.
func New(c *router.Client, maxPayload int64, cfg Config) *Gateway {
	g := &Gateway{c: c, known: make(map[string]described)}
	g.cfg, g.err = cfg.normal(maxPayload)
	g.room = make(chan struct{}, max(1, g.cfg.MaxInFlight))
	g.rate.Rate = g.cfg.Rate
	return g
}

func (c Config) normal(most int64) (Config, error) {
	if c.MaxInFlight == 0 {
		c.MaxInFlight = DefaultMaxInFlight
	}
	fits := int(most) - roomForHeaders
	if c.MaxBody == 0 {
		c.MaxBody = fits
	}
	if c.Rate == 0 {
		c.Rate = DefaultRate
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.transfer == 0 {
		c.transfer = transferTime
	}
	if c.MaxInFlight < 0 || c.MaxBody < 0 || c.Rate < 0 {
		return c, messages.Errorf(messages.CodeBadRequest, "requests at once, body and rate: found %d, %d, %v; allowed is more than 0", c.MaxInFlight, c.MaxBody, c.Rate)
	}
	if c.MaxBody > fits {
		return c, messages.Errorf(messages.CodeBadRequest, "body: found %d bytes, allowed are %d (the server's max_payload of %d less %d for headers); raise max_payload (up to 8 MB)", c.MaxBody, fits, most, roomForHeaders)
	}
	return c, nil
}

// Run serves l until ctx ends, then takes no more, finishes what it has, and returns when
// all is gone. It closes l.
func (g *Gateway) Run(ctx context.Context, l net.Listener, tls gateway.TLS) error {
	if g.err != nil {
		l.Close()
		return g.err
	}
	return gateway.Serve(ctx, l, g, tls, g.cfg.Logger)
}

// path is what the path of a request says.
type path struct {
	end     string // what is asked for, one of the ends
	model   string
	version string
}

// The ends of the API and their methods.
const (
	endServer   = "server"
	endLive     = "live"
	endReady    = "ready"
	endHealth   = "healthz"
	endOpenAPI  = "openapi"
	endModel    = "model"
	endModelYes = "model ready"
	endInfer    = "infer"
)

var methods = map[string]string{
	endServer: http.MethodGet, endLive: http.MethodGet, endReady: http.MethodGet, endHealth: http.MethodGet, endOpenAPI: http.MethodGet,
	endModel: http.MethodGet, endModelYes: http.MethodGet, endInfer: http.MethodPost,
}

// parsePath takes a path apart; ok is false for one that is not of the API.
func parsePath(text string) (p path, ok bool) {
	switch text {
	case "/v2", "/v2/":
		return path{end: endServer}, true
	case "/v2/health/live":
		return path{end: endLive}, true
	case "/v2/health/ready":
		return path{end: endReady}, true
	case "/healthz":
		return path{end: endHealth}, true
	case "/openapi.yaml":
		return path{end: endOpenAPI}, true
	}
	rest, found := strings.CutPrefix(text, "/v2/models/")
	if !found {
		return p, false
	}
	parts := strings.Split(rest, "/")
	p.model, parts = parts[0], parts[1:]
	if len(parts) >= 2 && parts[0] == "versions" {
		p.version, parts = parts[1], parts[2:]
		if p.version == "" {
			return p, false
		}
	}
	switch {
	case p.model == "":
		return p, false
	case len(parts) == 0:
		p.end = endModel
	case len(parts) == 1 && parts[0] == "ready":
		p.end = endModelYes
	case len(parts) == 1 && parts[0] == "infer":
		p.end = endInfer
	default:
		return p, false
	}
	return p, true
}

// ServeHTTP serves a request.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.limit(w)
	p, ok := parsePath(r.URL.Path)
	if !ok {
		g.refuse(w, r, messages.Errorf(messages.CodeNotFound, "there is no %s here; GET /openapi.yaml says what there is", clip(r.URL.Path)))
		return
	}
	if want := methods[p.end]; r.Method != want && (want != http.MethodGet || r.Method != http.MethodHead) {
		w.Header().Set("Allow", want)
		g.refuseWith(w, r, http.StatusMethodNotAllowed, messages.Errorf(messages.CodeBadRequest, "found method %s, allowed is %s", clip(r.Method), want))
		return
	}
	switch p.end { // these tell nothing that needs a key, and are asked by machines that have none
	case endLive, endHealth:
		text(w, "OK\n")
		return
	case endReady:
		g.ready(w)
		return
	}
	if !g.cfg.Keys.Allow(r) {
		w.Header().Set("WWW-Authenticate", "Api-Key")
		g.refuse(w, r, messages.Errorf(messages.CodeUnauthorized, "send a header Authorization: Api-Key … with a key of this gateway"))
		return
	}
	switch p.end {
	case endOpenAPI:
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(openAPI) // whoever has gone needs none
		return
	case endServer:
		writeJSON(w, http.StatusOK, map[string]any{"name": "fleetbus", "version": g.cfg.Version, "extensions": []string{"binary_tensor_data"}})
		return
	}
	if !validVersion(p.version) {
		g.refuse(w, r, messages.Errorf(messages.CodeNotFound, "version: found %q, expected up to %d letters, digits, dots, - and _", clip(p.version), maxVersion))
		return
	}
	leave, busy := g.enter()
	if busy != nil {
		g.refuse(w, r, busy)
		return
	}
	defer leave()
	switch p.end {
	case endModel:
		g.model(w, r, p)
	case endModelYes:
		g.modelReady(w, r, p)
	case endInfer:
		g.infer(w, r, p)
	}
}

// limit gives a client transferTime for its body, and no limit for what it was given before.
// It fails where there is no connection, as in a test.
func (g *Gateway) limit(w http.ResponseWriter) {
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(g.cfg.transfer))
	_ = c.SetWriteDeadline(time.Time{})
}

// unlimit is called when the body is there: from now on reading only finds that a client has gone.
func unlimit(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
}

// refuse answers with an error, which a client that still sends its body can read: many write
// all of it before they look, and of a connection that was closed meanwhile they see a reset.
// One that asked first (Expect) has not begun.
func (g *Gateway) refuse(w http.ResponseWriter, r *http.Request, err error) {
	g.refuseWith(w, r, status(messages.AsError(err, messages.CodeInternal).Code), err)
}

func (g *Gateway) refuseWith(w http.ResponseWriter, r *http.Request, status int, err error) {
	if r.Header.Get("Expect") == "" {
		_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, maxDrain)) // what it ends with changes nothing
	}
	failWith(w, status, err)
}

// enter takes a place, unless the door is full or asked too often.
func (g *Gateway) enter() (leave func(), busy *messages.Error) {
	if wait := g.rate.Take(time.Now()); wait > 0 {
		return nil, &messages.Error{Code: messages.CodeBusy, RetryAfter: wait, Message: fmt.Sprintf("this gateway takes %v requests a second; ask less often, raise its rate, or start another one", g.cfg.Rate)}
	}
	select {
	case g.room <- struct{}{}:
		return func() { <-g.room }, nil
	default:
		return nil, &messages.Error{Code: messages.CodeBusy, RetryAfter: busyRetry, Message: fmt.Sprintf("this gateway works on %d requests already; try again soon, or start another one", cap(g.room))}
	}
}

// busyRetry is what a caller is told to wait that finds the door full: a few times what an
// inference takes.
const busyRetry = 50 * time.Millisecond

// ready says whether the door itself can pass requests on. One model that is not ready must
// not take the door away from the others: each has a page of its own.
func (g *Gateway) ready(w http.ResponseWriter) {
	if g.cfg.Connected != nil && !g.cfg.Connected() {
		fail(w, messages.Errorf(messages.CodeUnavailable, "there is no connection to a NATS server"))
		return
	}
	routes := g.c.Routes()
	if routes.Rev == 0 {
		fail(w, messages.Errorf(messages.CodeUnavailable, "the fleet's routes are not known; is there a coordinator?"))
		return
	}
	text(w, "OK\n")
}

func text(w http.ResponseWriter, s string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = fmt.Fprint(w, s) // whoever has gone needs none
}
