package e2e

import (
	"bufio"
	order "encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// modelVariable makes this test binary a model that an agent starts with --exec: it takes
// so long to load, as real ones do, and then answers every request with its own bytes.
const modelVariable = "FLEETBUS_E2E_MODEL"

// modelExec is the value of --exec for it.
func modelExec(t *testing.T, handler string, loads time.Duration) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s=env %s=%v '%s'", handler, modelVariable, loads, self)
}

// model is such a model. It speaks the frames of agent/backend/execio, written a second
// time as a user's program would. It ends with its input.
func model(loads string) error {
	if how, trains := strings.CutPrefix(loads, "train "); trains {
		return trainer(how)
	}
	d, err := time.ParseDuration(loads)
	if err != nil {
		return err
	}
	<-time.After(d)
	in, out := bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)
	if err := frame(out, map[string]any{"type": "ready"}, nil); err != nil {
		return err
	}
	part := func() ([]byte, error) { return piece(in) }
	for {
		text, err := part()
		if err != nil {
			return err
		}
		body, err := part()
		if err != nil {
			return err
		}
		var h struct {
			Type string `json:"type"`
			ID   uint64 `json:"id"`
		}
		if err := json.Unmarshal(text, &h); err != nil {
			return err
		}
		if h.Type != "request" {
			continue // what is canceled has been answered by the time it is read
		}
		if err := frame(out, map[string]any{"type": "result", "id": h.ID}, body); err != nil {
			return err
		}
	}
}

// piece reads one of the two parts of a frame.
func piece(in *bufio.Reader) ([]byte, error) {
	var n uint32
	if err := order.Read(in, order.BigEndian, &n); err != nil {
		return nil, err
	}
	b := make([]byte, n)
	_, err := io.ReadFull(in, b)
	return b, err
}

func frame(out *bufio.Writer, header map[string]any, body []byte) error {
	text, err := json.Marshal(header)
	if err != nil {
		return err
	}
	b := order.BigEndian.AppendUint32(nil, uint32(len(text)))
	b = order.BigEndian.AppendUint32(append(b, text...), uint32(len(body)))
	if _, err := out.Write(append(b, body...)); err != nil {
		return err
	}
	return out.Flush()
}
