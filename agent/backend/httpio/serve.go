package httpio

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/messages"
)

// headerBinary is the header of the Open Inference Protocol's binary extension.
const headerBinary = "Inference-Header-Content-Length"

// Serve asks the server and waits for its answer, the end of ctx or the end of the server.
func (s *server) Serve(ctx context.Context, req *backend.Request) (backend.Response, error) {
	if len(req.Body) > s.o.MaxBody {
		return backend.Response{}, messages.Errorf(messages.CodePayloadTooLarge, "the request has %d bytes, handler %q passes on %d; raise MaxBody", len(req.Body), s.o.Name, s.o.MaxBody)
	}
	if s.places != nil {
		select {
		case s.places <- struct{}{}:
			defer func() { <-s.places }()
		case <-ctx.Done():
			return backend.Response{}, ctx.Err()
		case <-s.alive.Done():
			return backend.Response{}, s.lost()
		}
	}
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.alive, cancel)()
	body := lend(req.Body)
	defer body.back()
	post, err := s.request(asking, req, body)
	if err != nil {
		return backend.Response{}, err
	}
	resp, err := s.client.Do(post)
	var answer []byte
	if err == nil {
		defer resp.Body.Close()
		answer, err = s.read(resp)
	}
	var ours *messages.Error
	switch {
	case err == nil:
	case errors.As(err, &ours):
		return backend.Response{}, ours
	case ctx.Err() != nil:
		return backend.Response{}, ctx.Err()
	case s.alive.Err() != nil:
		return backend.Response{}, s.lost()
	default:
		s.suspect()
		return backend.Response{}, s.broken(resp, len(answer), err)
	}
	s.answered.Store(time.Now().UnixNano())
	if resp.StatusCode/100 != 2 {
		return backend.Response{}, s.refusal(resp, req, answer)
	}
	contentType := resp.Header.Get("Content-Type")
	if n := resp.Header.Get(headerBinary); n != "" {
		contentType = messages.AddParam(contentType, messages.ParamBinary, n)
	}
	return backend.Response{Body: answer, ContentType: contentType}, nil
}

// request makes the POST of a request.
func (s *server) request(ctx context.Context, req *backend.Request, body *lent) (*http.Request, error) {
	contentType, binary, version := messages.TakeParams(req.ContentType)
	at := s.o.URL
	if s.o.OIP {
		var err error
		if at, err = s.modelURL(version, "/infer"); err != nil {
			return nil, err
		}
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, at, nil)
	if err != nil {
		return nil, err
	}
	if n := len(req.Body); n > 0 {
		post.ContentLength, post.Body = int64(n), body.reader()
		post.GetBody = func() (io.ReadCloser, error) { return body.reader(), nil }
	}
	set := func(name, value string) {
		if value != "" {
			post.Header.Set(name, value)
		}
	}
	set("Content-Type", contentType)
	set(headerBinary, binary)
	set("Authorization", s.o.Authorization)
	set(messages.HeaderID, req.ID)
	set(messages.HeaderTask, req.Task)
	set(messages.HeaderClass, string(req.Class))
	set(messages.HeaderOrigin, req.Origin)
	set(messages.HeaderAttempt, strconv.Itoa(req.Attempt))
	set(messages.HeaderKey, req.Key)
	set(messages.HeaderEpisode, req.Episode)
	set(messages.HeaderTrace, req.Traceparent)
	if req.Seq > 0 {
		set(messages.HeaderSeq, strconv.FormatUint(req.Seq, 10))
	}
	if d, ok := ctx.Deadline(); ok {
		set(messages.HeaderLeft, strconv.FormatInt(max(0, time.Until(d).Milliseconds()), 10))
	}
	return post, nil
}

// read reads the answer, whatever its status.
func (s *server) read(resp *http.Response) ([]byte, error) {
	tooLarge := func(n string) error {
		return messages.Errorf(messages.CodePayloadTooLarge, "the result has %s bytes, handler %q passes on %d; raise MaxBody, or answer with a reference", n, s.o.Name, s.o.MaxBody)
	}
	n := resp.ContentLength
	if n > int64(s.o.MaxBody) {
		return nil, tooLarge(strconv.FormatInt(n, 10))
	}
	if n >= 0 {
		answer := make([]byte, n)
		got, err := io.ReadFull(resp.Body, answer)
		return answer[:got], err
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, int64(s.o.MaxBody)+1))
	if err == nil && len(answer) > s.o.MaxBody {
		return nil, tooLarge("more than " + strconv.Itoa(s.o.MaxBody))
	}
	return answer, err
}

// lost is what a request gets whose server has died.
func (s *server) lost() error {
	return messages.Errorf(messages.CodeBackendFailed, "%s ended while it served the request: %v", s.where, context.Cause(s.alive))
}

// broken is the error of a request whose connection failed. resp is what had come by then.
func (s *server) broken(resp *http.Response, got int, err error) error {
	if resp != nil {
		return messages.Errorf(messages.CodeBackendFailed, "%s closed the connection inside its answer (%s), after %d of %s bytes: %v", s.where, resp.Status, got, length(resp), plain(err))
	}
	err = plain(err)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return messages.Errorf(messages.CodeBackendFailed, "%s closed the connection without an answer", s.where)
	}
	return messages.Errorf(messages.CodeBackendFailed, "%s gave no answer: %v", s.where, err)
}

func length(resp *http.Response) string {
	if resp.ContentLength < 0 {
		return "an unknown number of"
	}
	return strconv.FormatInt(resp.ContentLength, 10)
}

// refusal maps an answer that is no result.
func (s *server) refusal(resp *http.Response, req *backend.Request, answer []byte) error {
	text := said(strings.NewReader(string(answer[:min(len(answer), maxSaid)])))
	fail := func(code messages.Code, more string) *messages.Error {
		return messages.Errorf(code, "%s answered %s%s%s", s.where, resp.Status, text, more)
	}
	switch c := resp.StatusCode; {
	case c == http.StatusTooManyRequests:
		e := fail(messages.CodeBusy, "")
		if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n >= 0 && n <= 3600 {
			e.RetryAfter = time.Duration(n) * time.Second
		}
		return e
	case c == http.StatusRequestEntityTooLarge:
		return fail(messages.CodePayloadTooLarge, "; the request has "+strconv.Itoa(len(req.Body))+" bytes: raise the limit of the model server, or send a reference")
	case c == http.StatusNotFound || c == http.StatusMethodNotAllowed:
		if _, _, version := messages.TakeParams(req.ContentType); version != "" && c == http.StatusNotFound {
			return fail(messages.CodeNotFound, "; version "+version+" of the model was asked for")
		}
		return fail(messages.CodeBackendFailed, "; check the URL of handler "+strconv.Quote(s.o.Name))
	case c == http.StatusUnauthorized || c == http.StatusForbidden:
		return fail(messages.CodeBackendFailed, "; check the authorization of handler "+strconv.Quote(s.o.Name))
	case c/100 == 3:
		return fail(messages.CodeBackendFailed, "; redirects are not followed, name the last URL of handler "+strconv.Quote(s.o.Name))
	case c/100 == 4 && c != http.StatusRequestTimeout:
		return fail(messages.CodeBadRequest, "")
	}
	return fail(messages.CodeBackendFailed, "")
}

// maxSaid bounds what is read of an error page, bytes.
const maxSaid = 4096

// said is what an error page says, for people: the text of JSON as model servers write it,
// else the first line; ": …" or "".
func said(r io.Reader) string {
	text, _ := io.ReadAll(io.LimitReader(r, maxSaid)) // what there is of it helps
	var page struct {
		Error  any `json:"error"`
		Detail any `json:"detail"`
	}
	line := string(text)
	if json.Unmarshal(text, &page) == nil {
		for _, v := range []any{page.Error, page.Detail} {
			if s, ok := v.(string); ok && s != "" {
				line = s
				break
			}
		}
	}
	line, _, _ = strings.Cut(strings.TrimSpace(line), "\n")
	line = strings.TrimSpace(strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) || c == unicode.ReplacementChar {
			return '.'
		}
		return c
	}, line))
	if r := []rune(line); len(r) > 200 {
		line = string(r[:200]) + "…"
	}
	if line == "" {
		return ""
	}
	return ": " + line
}

// lent is a body that is the caller's again after back: the transport may go on reading
// when the answer is there, or nobody waits for it any more.
type lent struct {
	mu sync.Mutex
	b  []byte
	ok bool
}

func lend(b []byte) *lent { return &lent{b: b, ok: true} }

func (l *lent) back() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b, l.ok = nil, false
}

// reader reads the body from its beginning: a connection that was closed before anything
// was written is replaced, and the new one gets all of it.
func (l *lent) reader() io.ReadCloser { return &lentReader{l: l} }

type lentReader struct {
	l  *lent
	at int
}

func (r *lentReader) Read(p []byte) (int, error) {
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	switch {
	case !r.l.ok:
		return 0, errors.New("the request has ended")
	case r.at >= len(r.l.b):
		return 0, io.EOF
	}
	n := copy(p, r.l.b[r.at:])
	r.at += n
	return n, nil
}

func (r *lentReader) Close() error { return nil }
