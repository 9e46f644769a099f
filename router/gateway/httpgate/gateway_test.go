package httpgate

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/agent/backend/backendtest"
	"github.com/fleetbus/fleetbus/agent/backend/httpio"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/router/gateway"
	"github.com/fleetbus/fleetbus/testing/lab"
	"github.com/fleetbus/fleetbus/testing/oip"
	"go.uber.org/goleak"
	"go.yaml.in/yaml/v3"
)

func TestMain(m *testing.M) {
	const server = "github.com/nats-io/nats-server/v2/server"
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction(server+"/ats.Register.func1"),
		goleak.IgnoreAnyFunction(server+".(*fileStore).flushStreamStateLoop"))
}

func model(name string) messages.Task {
	return messages.Task{Name: name, Class: messages.Inference, Demand: messages.Resources{Compute: 1, Storage: 1, Network: 1}, Concurrency: 4, Deadline: 20_000, Revision: 3}
}

// door is a running door.
type door struct {
	*Gateway
	url    string
	client *http.Client
}

func open(t *testing.T, l *lab.Lab, change func(*Config)) *door {
	t.Helper()
	cfg := Config{Logger: lab.Log(), Version: "test"}
	if change != nil {
		change(&cfg)
	}
	g := New(l.Client("door"), 8<<20, cfg)
	ln, err := gateway.Listen(t.Context(), "127.0.0.1:0", cfg.Keys, 100)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx, ln, gateway.TLS{}) }()
	transport := &http.Transport{}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return &door{g, "http://" + ln.Addr().String(), &http.Client{Transport: transport, Timeout: lab.Patience}}
}

// reply is what came back.
type reply struct {
	status int
	header http.Header
	body   []byte
	page   struct {
		Error      string `json:"error"`
		Code       string `json:"code"`
		RetryAfter int    `json:"retry_after_ms"`
	}
}

func (d *door) do(t *testing.T, method, path string, body io.Reader, header ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, d.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := d.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	r := reply{status: resp.StatusCode, header: resp.Header}
	if r.body, err = io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	_ = json.Unmarshal(r.body, &r.page) // of an answer that is no error it finds nothing
	return r
}

func (d *door) infer(t *testing.T, task, body string, header ...string) reply {
	t.Helper()
	return d.do(t, http.MethodPost, "/v2/models/"+task+"/infer", strings.NewReader(body), header...)
}

// want checks an error.
func (r reply) want(t *testing.T, status int, code messages.Code, text string) {
	t.Helper()
	if r.status != status || r.page.Code != string(code) || !strings.Contains(r.page.Error, text) || r.header.Get("Fb-Error") != string(code) {
		t.Errorf("%d %s, want %d %s with %q", r.status, r.body, status, code, text)
	}
	if (r.header.Get("Retry-After") != "") != (status == http.StatusServiceUnavailable) {
		t.Errorf("%d: Retry-After is %q", r.status, r.header.Get("Retry-After"))
	}
}

// stand is a model server that runs, with an agent in front of it.
func stand(t *testing.T, l *lab.Lab, s *oip.Server) *httptest.Server {
	t.Helper()
	web := httptest.NewServer(s)
	t.Cleanup(func() { web.CloseClientConnections(); web.Close() })
	task := model(oip.Model)
	l.Agent("edge", task, httpio.New(httpio.Options{Name: oip.Model, URL: web.URL + "/v2/models/" + oip.Model, OIP: true, Logger: lab.Log()}))
	l.Place(task, "edge")
	return web
}

// What a client of a model server finds there it finds here, JSON and binary alike.
func TestConformance(t *testing.T) {
	l := lab.New(t)
	stand(t, l, &oip.Server{})
	keys, err := gateway.ParseKeys([]byte("a-secret-key"))
	if err != nil {
		t.Fatal(err)
	}
	d := open(t, l, func(c *Config) { c.Keys = keys })
	checks, wrong := oip.Target{URL: d.url, Model: oip.Model, Key: "a-secret-key", Client: d.client}.Conform(t.Context())
	if len(wrong) > 0 || checks < 20 {
		t.Errorf("%d checks: %s", checks, strings.Join(wrong, "\n"))
	}
	d.infer(t, oip.Model, "{}").want(t, 401, messages.CodeUnauthorized, "Authorization: Api-Key")
	d.do(t, http.MethodGet, "/v2", nil, "Authorization", "Api-Key wrong-secret").want(t, 401, messages.CodeUnauthorized, "")
	for _, path := range []string{"/v2/health/live", "/v2/health/ready", "/healthz"} { // for machines without a key
		if r := d.do(t, http.MethodGet, path, nil); r.status != 200 || string(r.body) != "OK\n" {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
}

// And what is planted in the model server is seen through the door.
func TestFaultsShow(t *testing.T) {
	for _, fault := range []string{oip.FaultHeader, oip.FaultBytes, oip.FaultStatus} {
		l := lab.New(t)
		stand(t, l, &oip.Server{Fault: fault})
		d := open(t, l, nil)
		if checks, wrong := (oip.Target{URL: d.url, Model: oip.Model, Client: d.client}).Conform(t.Context()); len(wrong) == 0 {
			t.Errorf("fault %q was not noticed in %d checks", fault, checks)
		}
	}
}

// Bodies come back byte for byte, with their content type, up to the payload limit; over
// it they are refused, with a length and without.
func TestBytes(t *testing.T) {
	l := lab.New(t)
	stand(t, l, &oip.Server{})
	d := open(t, l, nil)
	seed := uint64(time.Now().UnixNano())
	dice := rand.New(rand.NewPCG(seed, 0))
	limit := 8<<20 - roomForHeaders
	path := "/v2/models/" + oip.Model + "/infer"
	for i, n := range backendtest.Sizes(limit, dice) {
		body := backendtest.Random(n, dice)
		var r io.Reader = bytes.NewReader(body)
		if i%2 == 1 {
			r = io.MultiReader(r) // without a length
		}
		got := d.do(t, http.MethodPost, path, r, "Content-Type", "application/x-bytes")
		if got.status != 200 || !bytes.Equal(got.body, body) || got.header.Get("Content-Type") != "application/x-bytes" {
			t.Fatalf("seed %d: %d bytes came back as %d others, %d %s", seed, n, len(got.body), got.status, got.header.Get("Content-Type"))
		}
	}
	over := make([]byte, limit+1)
	d.do(t, http.MethodPost, path, bytes.NewReader(over)).want(t, 413, messages.CodePayloadTooLarge, fmt.Sprintf("the body has %d bytes, allowed are %d; raise max_payload", limit+1, limit))
	d.do(t, http.MethodPost, path, io.MultiReader(bytes.NewReader(over))).want(t, 413, messages.CodePayloadTooLarge, "more than")
}

// What goes wrong behind the door, in the words and numbers that its user sees.
func TestErrors(t *testing.T) {
	l := lab.New(t)
	var web *httptest.Server
	s := &oip.Server{}
	s.Misbehave = func(w http.ResponseWriter, r *http.Request, body []byte) bool {
		raw := func(text string) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				fmt.Fprint(conn, text)
				conn.Close()
			}
		}
		switch string(body) {
		case "hang":
			<-r.Context().Done()
		case "500":
			http.Error(w, `{"error":"CUDA out of memory"}`, 500)
		case "429":
			w.Header().Set("Retry-After", "3")
			http.Error(w, "queue full", http.StatusTooManyRequests)
		case "garbage":
			raw("%PDF-1.4\r\n\r\n")
		case "cut":
			raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes.")
		case "crash":
			raw("")
		default:
			return false
		}
		return true
	}
	web = stand(t, l, s)
	task := model(oip.Model)
	task.MaxAttempts = 1
	l.Place(task, "edge")
	waits := model("waits")
	l.Place(waits)
	l.Place(messages.Task{Name: "act", Class: messages.Action}, "edge")
	d := open(t, l, nil)
	text := []string{"Content-Type", "text/plain"}
	d.infer(t, oip.Model, "hang", append(text, "Fb-Left-Ms", "50")...).want(t, 504, messages.CodeDeadline, "")
	d.infer(t, oip.Model, "500", text...).want(t, 502, messages.CodeBackendFailed, "500 Internal Server Error: CUDA out of memory")
	d.infer(t, oip.Model, "429", text...).want(t, 503, messages.CodeBusy, "queue full")
	if r := d.infer(t, oip.Model, "429", text...); r.header.Get("Retry-After") != "3" || r.page.RetryAfter != 3000 {
		t.Errorf("%v %s", r.header, r.body)
	}
	d.infer(t, oip.Model, "garbage", text...).want(t, 502, messages.CodeBackendFailed, "malformed HTTP")
	d.infer(t, oip.Model, "cut", text...).want(t, 502, messages.CodeBackendFailed, "closed the connection inside its answer (200 OK), after 10 of 100 bytes")
	d.infer(t, oip.Model, "crash", text...).want(t, 502, messages.CodeBackendFailed, "closed the connection without an answer")
	d.infer(t, "waits", "x").want(t, 503, messages.CodeNoCapacity, "no machine has room")
	d.do(t, http.MethodGet, "/v2/models/waits/ready", nil).want(t, 503, messages.CodeNotPlaced, "no machine has room")
	d.do(t, http.MethodGet, "/v2/models/act/ready", nil).want(t, 404, messages.CodeNotFound, "no task of class inference")
	d.infer(t, "act", "x").want(t, 400, messages.CodeBadRequest, "of class action")
	d.infer(t, "nobody", "x").want(t, 404, messages.CodeNotFound, "known are")
	d.infer(t, "a.b", "x").want(t, 404, messages.CodeNotFound, "model")
	d.infer(t, oip.Model, "x", "Fb-Left-Ms", "soon").want(t, 400, messages.CodeBadRequest, `found "soon", expected a whole number of milliseconds`)
	d.infer(t, oip.Model, "x", "Fb-Left-Ms", "0").want(t, 400, messages.CodeBadRequest, "Fb-Left-Ms")
	d.infer(t, oip.Model, "x", "Fb-Id", "a b").want(t, 400, messages.CodeBadRequest, "Fb-Id")
	d.infer(t, oip.Model, "x", "Fb-Id", "a", "Fb-Id", "b").want(t, 400, messages.CodeBadRequest, "found 2 values")
	d.infer(t, oip.Model, "x", "Content-Encoding", "gzip").want(t, 400, messages.CodeBadRequest, "send it without")
	d.infer(t, oip.Model, "x", "Content-Type", strings.Repeat("x", 129)).want(t, 400, messages.CodeBadRequest, "at most 128 bytes")
	d.infer(t, oip.Model, "", "Content-Type", messages.MetadataType).want(t, 400, messages.CodeBadRequest, "Content-Type")
	d.do(t, http.MethodPost, "/v2/models/double/versions/a%20b/infer", nil).want(t, 404, messages.CodeNotFound, "version")
	d.do(t, http.MethodGet, "/v2/models/double/infer", nil).want(t, 405, messages.CodeBadRequest, "found method GET, allowed is POST")
	for _, path := range []string{"/", "/v1", "/v2/models", "/v2/models/", "/v2/models/a/b", "/v2/models/a/versions", "/v2/models/a/versions/1/x", "/v2/repository/index"} {
		d.do(t, http.MethodGet, path, nil).want(t, 404, messages.CodeNotFound, "there is no "+path+" here")
	}
	r := d.infer(t, oip.Model, "x", append(text, "Fb-Id", "mine")...)
	if r.status != 200 || r.header.Get("Fb-Id") != "mine" || r.header.Get("Fb-Agent") != "edge" || r.header.Get("Fb-Attempt") != "1" || r.header.Get("Fb-Service-Us") == "" {
		t.Errorf("%d %v", r.status, r.header)
	}
	// The model server dies, and later its replica with it.
	web.Listener.Close()
	web.CloseClientConnections()
	r = d.infer(t, oip.Model, "x", append(text, "Fb-Left-Ms", "2000")...)
	if r.status != 502 && r.status != 503 && r.status != 504 {
		t.Errorf("%d %s", r.status, r.body)
	}
	gone := open(t, l, func(c *Config) { c.Connected = func() bool { return false } })
	gone.do(t, http.MethodGet, "/v2/health/ready", nil).want(t, 503, messages.CodeUnavailable, "no connection to a NATS server")
}

// A handler that is no model server is a model all the same, of one version.
func TestGoHandler(t *testing.T) {
	l := lab.New(t)
	task := model("grasp")
	l.Agent("edge", task, agent.Func("grasp", func(_ context.Context, r *agent.Request) ([]byte, error) {
		return append([]byte("re:"), r.Body...), nil
	}))
	l.Place(task, "edge")
	d := open(t, l, nil)
	if r := d.do(t, http.MethodGet, "/v2/models/grasp", nil); r.status != 200 || string(r.body) != `{"inputs":[],"name":"grasp","outputs":[],"platform":"fleetbus","versions":["3"]}`+"\n" {
		t.Errorf("%d %s", r.status, r.body)
	}
	// The header speaks of the request; it does not come back with an answer that has none.
	r := d.infer(t, "grasp", "{}tail", "Content-Type", "application/octet-stream", headerBinary, "2")
	if r.status != 200 || string(r.body) != "re:{}tail" || r.header.Get(headerBinary) != "" || r.header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("%d %q %v", r.status, r.body, r.header)
	}
	if r := d.infer(t, "grasp/versions/3", "x"); r.status != 200 || string(r.body) != "re:x" || len(r.header.Values("Content-Type")) != 0 {
		t.Errorf("%d %q %v", r.status, r.body, r.header)
	}
	d.infer(t, "grasp/versions/4", "x").want(t, 404, messages.CodeNotFound, "model grasp has no version 4; it has 3")
	d.do(t, http.MethodGet, "/v2/models/grasp/versions/4/ready", nil).want(t, 404, messages.CodeNotFound, "no version 4")
}

// What comes too often, or too much at once, is busy.
func TestBounds(t *testing.T) {
	l := lab.New(t)
	task := model("slow")
	task.Delivery = messages.Direct // so that who has it is known from the first moment
	entered := make(chan struct{}, 10)
	l.Agent("edge", task, agent.Func("slow", func(ctx context.Context, _ *agent.Request) ([]byte, error) {
		entered <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}))
	l.Place(task, "edge")
	d := open(t, l, func(c *Config) { c.MaxInFlight = 1 })
	ctx, cancel := context.WithCancel(t.Context())
	var one sync.WaitGroup
	one.Go(func() {
		req, _ := http.NewRequestWithContext(ctx, http.MethodPost, d.url+"/v2/models/slow/infer", strings.NewReader("x"))
		if resp, err := d.client.Do(req); err == nil {
			resp.Body.Close()
		}
	})
	<-entered
	d.infer(t, "slow", "x").want(t, 503, messages.CodeBusy, "works on 1 requests already")
	cancel() // who goes away frees his place
	one.Wait()
	over := time.Now().Add(lab.Patience)
	for len(d.room) > 0 && time.Now().Before(over) {
		<-time.After(time.Millisecond)
	}
	if len(d.room) > 0 {
		t.Error("the place of a client that has gone is still taken")
	}
	rated := open(t, l, func(c *Config) { c.Rate = 0.001 })
	rated.infer(t, "nobody", "x").want(t, 404, messages.CodeNotFound, "")
	rated.infer(t, "nobody", "x").want(t, 503, messages.CodeBusy, "takes 0.001 requests a second")
}

// The description of the API has what is served, and nothing else.
func TestOpenAPI(t *testing.T) {
	l := lab.New(t)
	stand(t, l, &oip.Server{})
	d := open(t, l, nil)
	r := d.do(t, http.MethodGet, "/openapi.yaml", nil)
	if r.status != 200 || r.header.Get("Content-Type") != "application/yaml" || !bytes.Equal(r.body, openAPI) {
		t.Fatalf("%d %v", r.status, r.header)
	}
	var spec struct {
		OpenAPI    string
		Paths      map[string]map[string]yaml.Node
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct{ Enum []string }
			}
		}
	}
	if err := yaml.Unmarshal(r.body, &spec); err != nil || !strings.HasPrefix(spec.OpenAPI, "3.") {
		t.Fatal(spec.OpenAPI, err)
	}
	ends := map[string]bool{}
	for template, methods := range spec.Paths {
		path := strings.NewReplacer("{model}", oip.Model, "{version}", "1").Replace(template)
		p, ok := parsePath(path)
		if !ok {
			t.Errorf("%s is described and not served", template)
			continue
		}
		ends[p.end+" "+fmt.Sprint(p.version != "")] = true
		for method, node := range methods {
			if method == "parameters" {
				continue
			}
			var operation struct{ Responses map[string]yaml.Node }
			if err := node.Decode(&operation); err != nil {
				t.Fatal(err)
			}
			var body io.Reader
			if method == "post" {
				body = bytes.NewReader(oip.JSON("x", 1))
			}
			got := d.do(t, strings.ToUpper(method), path, body, "Content-Type", "application/json")
			if _, described := operation.Responses[fmt.Sprint(got.status)]; got.status != 200 || !described {
				t.Errorf("%s %s: %d %s, described are %v", method, template, got.status, got.body, operation.Responses)
			}
			if want := methodsOf(p.end); want != strings.ToUpper(method) {
				t.Errorf("%s is described with %s, served is %s", template, method, want)
			}
			for _, s := range statuses(p.end) {
				if _, ok := operation.Responses[fmt.Sprint(s)]; !ok {
					t.Errorf("%s %s: status %d is not described", method, template, s)
				}
			}
		}
	}
	for end := range methods {
		if !ends[end+" false"] {
			t.Errorf("%s is served and not described", end)
		}
	}
	for _, end := range []string{endModel, endModelYes, endInfer} {
		if !ends[end+" true"] {
			t.Errorf("%s with a version is served and not described", end)
		}
	}
	var codes []string
	for _, c := range messages.Codes() {
		codes = append(codes, string(c))
	}
	if got := spec.Components.Schemas["Error"].Properties["code"].Enum; fmt.Sprint(got) != fmt.Sprint(codes) {
		t.Errorf("codes: %v, want %v", got, codes)
	}
	if refs := regexp.MustCompile(`'#/components/([a-zA-Z]+)/([a-zA-Z]+)'`).FindAllStringSubmatch(string(openAPI), -1); len(refs) == 0 {
		t.Error("no reference found")
	} else {
		var tree map[string]map[string]map[string]yaml.Node
		var whole struct{ Components yaml.Node }
		if err := yaml.Unmarshal(openAPI, &whole); err != nil {
			t.Fatal(err)
		}
		tree = map[string]map[string]map[string]yaml.Node{"components": {}}
		if err := whole.Components.Decode(tree["components"]); err != nil {
			t.Fatal(err)
		}
		for _, ref := range refs {
			if _, ok := tree["components"][ref[1]][ref[2]]; !ok {
				t.Errorf("%s leads nowhere", ref[0])
			}
		}
	}
}

func methodsOf(end string) string { return methods[end] }

// statuses are those that an end answers errors with, beside 405.
func statuses(end string) []int {
	switch end {
	case endInfer:
		return []int{400, 401, 404, 409, 413, 500, 502, 503, 504}
	case endModel:
		return []int{401, 404, 502, 503, 504}
	case endModelYes:
		return []int{401, 404, 503}
	case endReady:
		return []int{503}
	case endServer, endOpenAPI:
		return []int{401}
	}
	return nil
}

func TestStatus(t *testing.T) {
	for _, c := range messages.Codes() {
		if s := status(c); s == http.StatusInternalServerError && c != messages.CodeInternal {
			t.Errorf("%s has no status", c)
		}
	}
}
