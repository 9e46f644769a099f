package httpio

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/messages"
)

// The defaults of [Options]. A model may take minutes to load; a server that is not there
// after ReadyTimeout is told of as failed and tried again. HangTimeout is longer than an
// inference takes, because a server that computes may answer nothing else meanwhile.
const (
	DefaultReadyTimeout = 10 * time.Minute
	DefaultHangTimeout  = 30 * time.Second
	DefaultMaxBody      = 64 << 20 // bytes: far above what NATS carries (8 MB)
)

// How a server is asked whether it is ready. probeTime bounds one question: a server
// on the same machine or network answers in milliseconds, and one that does not is hanging
// or computing, which the health decides over many. dialTime bounds a connection alike.
// Connections that nobody uses are closed after idleTime, which is a little less than the
// shortest time after which common servers close them (5 s): a request that is written
// into the server's close fails without need.
const (
	probeFirst = 100 * time.Millisecond // between two questions while it is not ready, growing
	probeMost  = 2 * time.Second
	probeTime  = time.Second
	dialTime   = 2 * time.Second
	idleTime   = 4 * time.Second
)

// Options is where a model server is and how it is spoken to. Name and URL are needed.
type Options struct {
	Name string // of the handler; messages.AnyHandler serves whatever no other handler does
	URL  string // http or https; with OIP that of the model, http://host:8000/v2/models/NAME or …/versions/N
	OIP  bool   // it speaks the Open Inference Protocol v2

	ReadyURL      string // without OIP: answers 2xx to a GET when it is ready; "": it takes connections
	Authorization string // the header of that name, for example "Bearer …"; "": none
	Concurrency   int    // requests at once, of all replicas that use this handler; 0: the slots of each

	ReadyTimeout time.Duration // until it is ready; 0: DefaultReadyTimeout
	HangTimeout  time.Duration // without an answer to anything until it counts as dead; 0: DefaultHangTimeout
	MaxBody      int           // bytes, in either direction; 0: DefaultMaxBody
	Logger       *slog.Logger  // nil: slog.Default()
}

// New makes a handler that asks the server. It starts nothing and connects to nothing;
// what is wrong with the options is returned by Open.
func New(o Options) backend.Handler {
	if o.ReadyTimeout <= 0 {
		o.ReadyTimeout = DefaultReadyTimeout
	}
	if o.HangTimeout <= 0 {
		o.HangTimeout = DefaultHangTimeout
	}
	if o.MaxBody <= 0 {
		o.MaxBody = DefaultMaxBody
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	h := &handler{o: o}
	if o.Concurrency > 0 {
		h.places = make(chan struct{}, o.Concurrency)
	}
	return h
}

type handler struct {
	o      Options
	places chan struct{} // nil: as many as there are slots
}

func (h *handler) Name() string { return h.o.Name }

// CheckURL returns what is wrong with the URL of a server.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return fmt.Errorf("found %q, expected a URL like http://127.0.0.1:8000/predict: %w", text, err)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("found %q, expected a URL like http://127.0.0.1:8000/predict", text)
	case u.User != nil:
		return fmt.Errorf("found a URL of %s with credentials in it; give them as authorization, so that they stand in no log", u.Host)
	case u.Fragment != "":
		return fmt.Errorf("found %q with a fragment (#), which is never sent; leave it out", text)
	}
	return nil
}

// Open waits until the server is ready.
func (h *handler) Open(ctx context.Context, open backend.Open) (backend.Server, error) {
	for _, u := range []string{h.o.URL, h.o.ReadyURL} {
		if u == "" && u != h.o.URL {
			continue
		}
		if err := CheckURL(u); err != nil {
			return nil, messages.Errorf(messages.CodeBadRequest, "handler %q: %v", h.o.Name, err)
		}
	}
	s := h.newServer(open.Task.Slots())
	over := time.NewTimer(h.o.ReadyTimeout)
	defer over.Stop()
	for pause := probeFirst; ; pause = min(2*pause, probeMost) {
		err := s.probe(ctx)
		if err == nil && h.o.OIP {
			err = s.readMetadata(ctx)
		}
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			s.client.CloseIdleConnections()
			return nil, ctx.Err()
		}
		open.Note("waits for %s: %v", s.where, err)
		again := time.NewTimer(pause)
		select {
		case <-again.C:
			continue
		case <-ctx.Done():
			err = ctx.Err()
		case <-over.C:
			err = messages.Errorf(messages.CodeBackendFailed, "%s was not ready within %v: %v; start it, check its URL, or raise the ready timeout", s.where, h.o.ReadyTimeout, err)
		}
		again.Stop()
		s.client.CloseIdleConnections()
		return nil, err
	}
	s.watcher.Go(s.watch)
	return s, nil
}

// server is one replica's way to the model server. One goroutine watches over it.
type server struct {
	o      Options
	where  string // for people: the server without what may be secret
	client *http.Client
	places chan struct{}

	metadata backend.Response // OIP: what it said of itself when it was opened

	answered atomic.Int64  // UnixNano of its last answer to anything
	failed   chan struct{} // capacity 1: a connection failed
	alive    context.Context
	die      context.CancelCauseFunc // ends alive, with the reason
	closing  chan struct{}
	done     chan struct{} // closed when the server has died
	watcher  sync.WaitGroup
}

func (h *handler) newServer(slots int) *server {
	u, _ := url.Parse(h.o.URL) // CheckURL has parsed it
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: dialTime}).DialContext,
		TLSHandshakeTimeout: dialTime,
		MaxIdleConnsPerHost: slots + 1, // one for the watch
		IdleConnTimeout:     idleTime,
		DisableCompression:  true, // bytes pass as they are
		// As large as an observation, so that it goes out with few calls.
		WriteBufferSize: 64 << 10, ReadBufferSize: 64 << 10,
	}
	s := &server{
		o: h.o, where: u.Scheme + "://" + u.Host + u.Path, places: h.places,
		client: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		failed: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{}),
	}
	s.alive, s.die = context.WithCancelCause(context.Background())
	return s
}

// Describe returns what the server said of its model.
func (s *server) Describe(context.Context) (backend.Response, error) {
	if !s.o.OIP {
		return backend.Response{}, messages.Errorf(messages.CodeBadRequest, "handler %q has no metadata: its server is not said to speak the Open Inference Protocol", s.o.Name)
	}
	return s.metadata, nil
}

// Close ends the watch and the connections.
func (s *server) Close() error {
	close(s.closing)
	s.die(errors.New("it was closed"))
	s.watcher.Wait()
	s.client.CloseIdleConnections()
	return nil
}

// Done is closed when the server has died.
func (s *server) Done() <-chan struct{} { return s.done }

// Err tells why it has died; nil before.
func (s *server) Err() error {
	select {
	case <-s.done:
		return fmt.Errorf("%s: %w", s.where, context.Cause(s.alive))
	default:
		return nil
	}
}

// modelURL is the URL of the model's end, for the version that a caller named.
func (s *server) modelURL(version, end string) (string, error) {
	base := s.o.URL
	if version != "" {
		if i := strings.LastIndex(base, "/versions/"); i >= 0 {
			if own := base[i+len("/versions/"):]; own != version {
				return "", messages.Errorf(messages.CodeNotFound, "version %s of the model was asked for; this backend serves version %s alone", version, own)
			}
		} else {
			base += "/versions/" + url.PathEscape(version)
		}
	}
	return base + end, nil
}
