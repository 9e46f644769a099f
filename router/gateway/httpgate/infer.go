package httpgate

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router"
	"github.com/nats-io/nuid"
)

// headerBinary is the header of the protocol's binary extension.
const headerBinary = "Inference-Header-Content-Length"

// maxContentType is the longest content type that is passed on; with the parameters that
// carry header and version it must fit where agents cut.
const maxContentType = 128

// maxVersion is the longest name of a version.
const maxVersion = 64

// statusCanceled is what servers note for a client that has gone.
const statusCanceled = 499

// status is the HTTP status of a code.
func status(c messages.Code) int {
	switch c {
	case messages.CodeBadRequest:
		return http.StatusBadRequest
	case messages.CodeUnauthorized:
		return http.StatusUnauthorized
	case messages.CodeNotFound:
		return http.StatusNotFound
	case messages.CodeConflict, messages.CodeSuperseded, messages.CodeStopped, messages.CodeStale:
		return http.StatusConflict
	case messages.CodePayloadTooLarge:
		return http.StatusRequestEntityTooLarge
	case messages.CodeCanceled:
		return statusCanceled
	case messages.CodeBackendFailed, messages.CodeUnknownOutcome:
		return http.StatusBadGateway
	case messages.CodeBusy, messages.CodeNoCapacity, messages.CodeNotPlaced, messages.CodeNotConnected, messages.CodeDraining, messages.CodeUnavailable:
		return http.StatusServiceUnavailable
	case messages.CodeDeadline, messages.CodeExpired:
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}

// fail answers with an error.
func fail(w http.ResponseWriter, err error) {
	failWith(w, status(messages.AsError(err, messages.CodeInternal).Code), err)
}

func failWith(w http.ResponseWriter, status int, err error) {
	e := messages.AsError(err, messages.CodeInternal)
	page := map[string]any{"error": e.Message, "code": e.Code}
	w.Header().Set(messages.HeaderError, string(e.Code))
	if status == http.StatusServiceUnavailable {
		// The header counts whole seconds; the page, for those who know us, milliseconds.
		w.Header().Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(e.RetryAfter.Seconds())))))
		if e.RetryAfter > 0 {
			page["retry_after_ms"] = max(1, e.RetryAfter.Milliseconds())
		}
	}
	writeJSON(w, status, page)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // whoever has gone needs none
}

// clip shortens what a stranger sent, for an error.
func clip(s string) string {
	if len(s) > messages.MaxName {
		return strings.ToValidUTF8(s[:messages.MaxName], "") + "…"
	}
	return s
}

func validVersion(v string) bool {
	return len(v) <= maxVersion && !strings.ContainsFunc(v, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_'
	})
}

// infer passes a request on.
func (g *Gateway) infer(w http.ResponseWriter, r *http.Request, p path) {
	in, err := g.request(r, p)
	if err == nil && p.version != "" {
		in.ContentType, err = g.versioned(r.Context(), in.ContentType, p)
	}
	if err == nil {
		in.Body, err = g.body(r, in.ContentType)
	}
	if in.ID == "" {
		in.ID = nuid.Next()
	}
	w.Header().Set(messages.HeaderID, in.ID)
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	unlimit(w)
	answer, err := g.c.Infer(r.Context(), in)
	if err != nil {
		fail(w, err)
		return
	}
	contentType, binary, _ := messages.TakeParams(answer.ContentType)
	h := w.Header()
	if contentType == "" {
		h["Content-Type"] = nil // none was said, and none is guessed
	} else {
		h.Set("Content-Type", contentType)
	}
	if binary != "" {
		h.Set(headerBinary, binary)
	}
	h.Set(messages.HeaderAgent, answer.Agent)
	h.Set(messages.HeaderAttempt, strconv.Itoa(answer.Attempt))
	h.Set(messages.HeaderService, strconv.FormatInt(answer.Service.Microseconds(), 10))
	h.Set("Content-Length", strconv.Itoa(len(answer.Body)))
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(g.cfg.transfer))
	_, _ = w.Write(answer.Body) // whoever has gone needs none
}

// request reads everything but the body.
func (g *Gateway) request(r *http.Request, p path) (in router.Inference, err error) {
	if err := messages.CheckName("model", p.model); err != nil {
		return in, messages.Errorf(messages.CodeNotFound, "%v", plain(err))
	}
	one := func(name string) (string, error) {
		v := r.Header.Values(name)
		if len(v) == 0 {
			return "", nil
		}
		if len(v) > 1 || len(v[0]) > maxHeader {
			return "", messages.Errorf(messages.CodeBadRequest, "header %s: found %d values, the first of %d bytes; allowed is one of at most %d", name, len(v), len(v[0]), maxHeader)
		}
		return v[0], nil
	}
	var left, binary string
	in.Task = p.model
	for name, to := range map[string]*string{
		messages.HeaderID: &in.ID, messages.HeaderKey: &in.Key, messages.HeaderTrace: &in.Traceparent,
		messages.HeaderLeft: &left, "Content-Type": &in.ContentType, headerBinary: &binary,
	} {
		if *to, err = one(name); err != nil {
			return router.Inference{}, err
		}
	}
	for name, value := range map[string]string{messages.HeaderID: in.ID, messages.HeaderKey: in.Key} {
		if value != "" {
			if err := messages.CheckName(name, value); err != nil {
				return router.Inference{}, err
			}
		}
	}
	if in.Deadline, err = deadline(left); err != nil {
		return in, err
	}
	if len(in.ContentType) > maxContentType || in.ContentType == messages.MetadataType {
		return in, messages.Errorf(messages.CodeBadRequest, "header Content-Type: found %q, allowed is any other of at most %d bytes", clip(in.ContentType), maxContentType)
	}
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return in, messages.Errorf(messages.CodeBadRequest, "header Content-Encoding: found %q; bodies are passed on as they are, so send it without", clip(e))
	}
	if binary != "" {
		if n, err := strconv.ParseUint(binary, 10, 31); err != nil || r.ContentLength >= 0 && int64(n) > r.ContentLength {
			return in, messages.Errorf(messages.CodeBadRequest, "header %s: found %q, expected the number of bytes of JSON with which the body begins, at most all of its %d", headerBinary, clip(binary), r.ContentLength)
		}
		in.ContentType = messages.AddParam(in.ContentType, messages.ParamBinary, binary)
	}
	return in, nil
}

// maxHeader bounds a header that is passed on, bytes.
const maxHeader = 1024

// plain strips the code off an error that becomes part of another one.
func plain(err error) string { return messages.AsError(err, messages.CodeInternal).Message }

// deadline reads the milliseconds that a caller has left; "": the task's own.
func deadline(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	most := uint64(router.MaxDeadline / time.Millisecond)
	ms, err := strconv.ParseUint(text, 10, 63)
	if err != nil || ms == 0 || ms > most {
		return 0, messages.Errorf(messages.CodeBadRequest, "header %s: found %q, expected a whole number of milliseconds from 1 to %d; leave it out for the task's own deadline", messages.HeaderLeft, clip(text), most)
	}
	return time.Duration(ms) * time.Millisecond, nil
}

// body reads the body, as it is.
func (g *Gateway) body(r *http.Request, contentType string) ([]byte, error) {
	tooLarge := func(n string) error {
		return messages.Errorf(messages.CodePayloadTooLarge, "the body has %s bytes, allowed are %d; raise max_payload of the NATS servers (up to 8 MB), compress it, or send a reference", n, g.cfg.MaxBody)
	}
	if r.ContentLength > int64(g.cfg.MaxBody) {
		return nil, tooLarge(strconv.FormatInt(r.ContentLength, 10))
	}
	var body []byte
	var err error
	if r.ContentLength >= 0 {
		body = make([]byte, r.ContentLength)
		_, err = io.ReadFull(r.Body, body)
	} else if body, err = io.ReadAll(io.LimitReader(r.Body, int64(g.cfg.MaxBody)+1)); len(body) > g.cfg.MaxBody {
		return nil, tooLarge("more than " + strconv.Itoa(g.cfg.MaxBody))
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, messages.Errorf(messages.CodeBadRequest, "the body took longer than %v; send it faster, or compress it", g.cfg.transfer)
	}
	if err != nil {
		return nil, messages.Errorf(messages.CodeBadRequest, "the body ended after %d bytes: %v", len(body), err)
	}
	if _, binary, _ := messages.TakeParams(contentType); binary != "" {
		if n, _ := strconv.Atoi(binary); n > len(body) {
			return nil, messages.Errorf(messages.CodeBadRequest, "header %s: found %d, the body has %d bytes", headerBinary, n, len(body))
		}
	}
	return body, nil
}

// described is what a task's backend said of itself.
type described struct {
	body        []byte // nil: it has nothing to say
	contentType string
	versions    []string // that it lists
	at          time.Time
}

// How long a description is good for, and how long one question for it may take: backends
// answer from memory.
const (
	describedGood = 10 * time.Second
	describedTime = 2 * time.Second
)

// describe asks the backend of a task what its model server says.
func (g *Gateway) describe(ctx context.Context, task string) (described, error) {
	g.mu.Lock()
	d, ok := g.known[task]
	g.mu.Unlock()
	if ok && time.Since(d.at) < describedGood {
		return d, nil
	}
	answer, err := g.c.Infer(ctx, router.Inference{Task: task, ContentType: messages.MetadataType, Deadline: describedTime})
	switch {
	case err == nil:
		var page struct {
			Versions []string `json:"versions"`
		}
		_ = json.Unmarshal(answer.Body, &page) // what it cannot read has no versions
		d = described{body: answer.Body, contentType: answer.ContentType, versions: page.Versions}
	case messages.CodeOf(err) == messages.CodeBadRequest && g.isModel(task):
		d = described{}
	default:
		return d, err
	}
	d.at = time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	for other, old := range g.known { // as many as there are tasks that somebody asks for
		if time.Since(old.at) > describedGood {
			delete(g.known, other)
		}
	}
	g.known[task] = d
	return d, nil
}

// isModel reports whether a task is one that can be asked: then bad_request is the
// backend's word.
func (g *Gateway) isModel(task string) bool {
	routes := g.c.Routes()
	r, ok := routes.Find(task)
	return ok && r.Task.Class == messages.Inference
}

// checkVersion says whether a task has a version; passed is whether its backend is to be
// told of it.
func (g *Gateway) checkVersion(ctx context.Context, p path) (passed bool, err error) {
	d, err := g.describe(ctx, p.model)
	if err != nil {
		return false, err
	}
	has := d.versions
	if d.body == nil {
		has = []string{g.revision(p.model)}
	} else if len(has) == 0 {
		return true, nil // its server decides
	}
	if !slices.Contains(has, p.version) {
		return false, messages.Errorf(messages.CodeNotFound, "model %s has no version %s; it has %s", p.model, p.version, strings.Join(has, ", "))
	}
	return d.body != nil, nil
}

// versioned adds the version of the path to a content type, where the backend knows what
// it is.
func (g *Gateway) versioned(ctx context.Context, contentType string, p path) (string, error) {
	passed, err := g.checkVersion(ctx, p)
	if err != nil || !passed {
		return contentType, err
	}
	return messages.AddParam(contentType, messages.ParamVersion, p.version), nil
}

// revision is the version of a task whose backend knows of none.
func (g *Gateway) revision(task string) string {
	routes := g.c.Routes()
	r, _ := routes.Find(task)
	return strconv.FormatUint(r.Task.Revision, 10)
}

// model answers what the model's server says of it.
func (g *Gateway) model(w http.ResponseWriter, r *http.Request, p path) {
	if err := messages.CheckName("model", p.model); err != nil {
		fail(w, messages.Errorf(messages.CodeNotFound, "%s", plain(err)))
		return
	}
	if p.version != "" {
		if _, err := g.checkVersion(r.Context(), p); err != nil {
			fail(w, err)
			return
		}
	}
	d, err := g.describe(r.Context(), p.model)
	if err != nil {
		fail(w, err)
		return
	}
	if d.body == nil {
		writeJSON(w, http.StatusOK, map[string]any{"name": p.model, "versions": []string{g.revision(p.model)}, "platform": "fleetbus", "inputs": []any{}, "outputs": []any{}})
		return
	}
	w.Header().Set("Content-Type", d.contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(d.body)))
	_, _ = w.Write(d.body) // whoever has gone needs none
}

// modelReady says whether some replica is ready.
func (g *Gateway) modelReady(w http.ResponseWriter, r *http.Request, p path) {
	routes := g.c.Routes()
	t, ok := routes.Find(p.model)
	if !ok || t.Task.Class != messages.Inference {
		fail(w, messages.Errorf(messages.CodeNotFound, "model %s is no task of class inference of this fleet", clip(p.model)))
		return
	}
	if !slices.ContainsFunc(t.Replicas, func(e messages.Route) bool { return e.State == messages.ReplicaReady }) {
		why := t.Waiting
		if why == "" {
			why = "its replicas are still loading"
		}
		fail(w, messages.Errorf(messages.CodeNotPlaced, "no replica of model %s is ready: %s", p.model, why))
		return
	}
	if p.version != "" {
		if _, err := g.checkVersion(r.Context(), p); err != nil {
			fail(w, err)
			return
		}
	}
	text(w, "OK\n")
}
