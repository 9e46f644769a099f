package httpio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/agent/backend/health"
	"github.com/fleetbus/fleetbus/messages"
)

// watch asks the server whether it is ready until it has died or is closed.
func (s *server) watch() {
	var judge health.Judge
	s.answered.Store(time.Now().UnixNano())
	timer := time.NewTimer(health.Every)
	defer timer.Stop()
	for {
		select {
		case <-s.closing:
			return
		case <-s.failed:
		case <-timer.C:
		}
		err := s.probe(s.alive)
		select {
		case <-s.closing:
			return
		default:
		}
		now := time.Now()
		if err == nil {
			s.answered.Store(now.UnixNano())
		}
		next, dead := judge.Take(now, time.Unix(0, s.answered.Load()), s.o.HangTimeout, err)
		if dead != nil {
			s.die(dead)
			close(s.done)
			return
		}
		timer.Reset(next)
	}
}

// suspect asks for a look at the server soon.
func (s *server) suspect() {
	select {
	case s.failed <- struct{}{}:
	default:
	}
}

// probe asks once whether the server is ready: nil, a health.Silence, or what it said instead.
func (s *server) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	at := s.o.ReadyURL
	if s.o.OIP {
		at = s.o.URL + "/ready"
	}
	if at == "" {
		return s.knock(ctx)
	}
	resp, err := s.get(ctx, at)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text := said(resp.Body)
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s says %s%s", path(at), resp.Status, text)
	}
	return nil
}

// knock opens a connection, which is all that is asked of a server without a page for it.
func (s *server) knock(ctx context.Context) error {
	u, err := url.Parse(s.o.URL)
	if err != nil {
		return err
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return plain(err)
	}
	conn.Close()
	return nil
}

func (s *server) get(ctx context.Context, at string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	if s.o.Authorization != "" {
		req.Header.Set("Authorization", s.o.Authorization)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, plain(err)
	}
	return resp, nil
}

// readMetadata reads what the server says of its model, once: it is that of this life.
func (s *server) readMetadata(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	resp, err := s.get(ctx, s.o.URL)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s says %s%s", path(s.o.URL), resp.Status, said(resp.Body))
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxMetadata+1))
	if err != nil {
		return plain(err)
	}
	if len(body) > maxMetadata {
		return messages.Errorf(messages.CodePayloadTooLarge, "its metadata has more than %d bytes", maxMetadata)
	}
	s.metadata = backend.Response{Body: body, ContentType: resp.Header.Get("Content-Type")}
	return nil
}

// maxMetadata bounds the metadata of a model, bytes: a few names and shapes.
const maxMetadata = 256 << 10

// path is a URL without its host, for people.
func path(at string) string {
	u, err := url.Parse(at)
	if err != nil {
		return "it"
	}
	return u.Path
}

// plain strips the method and the URL off an error, which the message around it has; one
// that says that there was no answer becomes a health.Silence.
func plain(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return health.Silence{Err: errors.New("no answer")}
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return health.Silence{Err: errors.New("no answer")}
	}
	return err
}
