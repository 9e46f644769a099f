package artifact

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/internal/bodyfile"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go/jetstream"
)

// Most is how many artifacts a fleet may have: a server lists 1,024 with one answer.
const Most = 1000

// cleanTime bounds what is tidied up after a push that failed, when the caller's own time
// may be over; findTime one question to the store.
const (
	cleanTime = 5 * time.Second
	findTime  = 10 * time.Second
)

// The keys of an object's metadata that are ours, for people.
const (
	metaName = "name"
	metaBy   = "by"
)

// Artifact is one in the store.
type Artifact struct {
	Digest string    `json:"sha256"`
	Name   string    `json:"name,omitempty"` // for people
	By     string    `json:"by,omitempty"`   // who pushed it, for people
	Size   int64     `json:"bytes"`
	Pushed time.Time `json:"pushed"` // on the server's clock
	object string
}

// Body is a as a download.
func (a Artifact) Body() bodyfile.Body {
	return bodyfile.Body{Name: a.Digest, Object: a.object, Digest: a.Digest, Size: a.Size}
}

func fromInfo(i jetstream.ObjectInfo) (Artifact, bool) {
	a := Artifact{Digest: i.Name, Name: i.Metadata[metaName], By: i.Metadata[metaBy], Size: int64(i.Size), Pushed: i.ModTime, object: i.NUID}
	return a, messages.IsDigest(i.Name) && a.Size >= 0 && messages.CheckName("object", i.NUID) == nil
}

// Find returns an artifact by its digest. One that is not there is an error with code
// not_found.
func Find(ctx context.Context, b *bus.Bus, digest string) (Artifact, error) {
	var found Artifact
	err := b.Ask(ctx, findTime, func(ctx context.Context) error {
		if _, err := b.Objects(ctx, bus.Artifacts); err != nil { // makes it where it is missing
			return err
		}
		info, ok, err := b.Object(ctx, bus.Artifacts, digest)
		if err != nil {
			return err
		}
		if ok {
			found, ok = fromInfo(info)
		}
		if !ok {
			return messages.Errorf(messages.CodeNotFound, "artifact %s is not in the fleet's store; `fleetbus artifacts push FILE` puts it there", Short(digest))
		}
		return nil
	})
	return found, err
}

// Short is a digest for people: what tells it from others.
func Short(digest string) string { return digest[:min(len(digest), 12)] }

// List returns all artifacts, the newest first.
func List(ctx context.Context, b *bus.Bus) ([]Artifact, error) {
	if _, err := b.Objects(ctx, bus.Artifacts); err != nil {
		return nil, err
	}
	infos, err := b.ObjectList(ctx, bus.Artifacts)
	list := make([]Artifact, 0, len(infos))
	for _, i := range infos {
		if a, ok := fromInfo(i); ok {
			list = append(list, a)
		}
	}
	slices.SortFunc(list, func(x, y Artifact) int {
		if c := y.Pushed.Compare(x.Pushed); c != 0 {
			return c
		}
		return strings.Compare(x.Digest, y.Digest)
	})
	return list, err
}

// Match returns the artifact whose digest begins with what is given, or whose name it is.
// None is an error with code not_found, several one with code bad_request.
func Match(list []Artifact, what string) (Artifact, error) {
	var found []Artifact
	for _, a := range list {
		if a.Name == what || len(what) >= 4 && strings.HasPrefix(a.Digest, strings.ToLower(what)) {
			found = append(found, a)
		}
	}
	switch len(found) {
	case 0:
		return Artifact{}, messages.Errorf(messages.CodeNotFound, "no artifact is called %q, nor has a digest that begins so (4 digits or more); `fleetbus artifacts ls` lists them", what)
	case 1:
		return found[0], nil
	}
	return Artifact{}, messages.Errorf(messages.CodeBadRequest, "%d artifacts are called %q, or have digests that begin so; say more of the digest", len(found), what)
}

// Push stores r, to its end, under its digest. One that is there already is not stored
// again: where r can be read twice it is not even sent. sent, unless nil, is called with the
// bytes so far and is called last with all. The artifact is there when Push returns, and
// not before; after an error nothing of it is kept, as far as the server could be told.
func Push(ctx context.Context, b *bus.Bus, name, by string, r io.Reader, sent func(bytes int64)) (a Artifact, there bool, err error) {
	list, err := List(ctx, b)
	if err != nil {
		return a, false, err
	}
	expect := ""
	if seeker, ok := r.(io.Seeker); ok {
		if start, err := seeker.Seek(0, io.SeekCurrent); err == nil { // else it is a pipe, and read once
			if expect, _, err = bodyfile.Digest(r); err == nil {
				_, err = seeker.Seek(start, io.SeekStart)
			}
			if err != nil {
				return a, false, unread(err)
			}
		}
	}
	if a, ok := has(list, expect); ok {
		return a, true, nil
	}
	if len(list) >= Most {
		return a, false, messages.Errorf(messages.CodeBadRequest, "the fleet has %d artifacts, allowed are %d; remove some with `fleetbus artifacts rm`", len(list), Most)
	}
	u, err := b.NewUpload(bus.Artifacts)
	if err != nil {
		return a, false, err
	}
	drop := func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
		defer cancel()
		_ = u.Drop(clean) // what stays is known to nobody, and takes room: the first error says why
	}
	sum, size, err := bodyfile.Send(ctx, u, r, sent)
	var reading *bodyfile.ReadError
	if errors.As(err, &reading) {
		err = unread(reading.Err)
	}
	digest := hex.EncodeToString(sum)
	if err == nil && expect != "" && expect != digest {
		err = messages.Errorf(messages.CodeConflict, "the file was changed while it was read; nothing was stored: push it again")
	}
	if err != nil {
		drop()
		return a, false, err
	}
	a = Artifact{Digest: digest, Name: name, By: by, Size: size, object: u.Object}
	is := bus.Described{Name: digest, Description: "fleetbus: artifact " + name, Size: size, Digest: sum, New: true, Metadata: map[string]string{metaName: name, metaBy: by}}
	err = u.Finish(ctx, is)
	if messages.CodeOf(err) == messages.CodeConflict {
		found, ferr := Find(ctx, b, digest)
		if ferr == nil {
			drop() // it was read once, or somebody else was quicker: it is the same
			return found, true, nil
		}
		if err = ferr; messages.CodeOf(ferr) == messages.CodeNotFound {
			// What is there is the mark that other clients leave of an object they delete.
			is.New = false
			err = u.Finish(ctx, is)
		}
	}
	if err != nil {
		drop()
	}
	return a, false, err
}

func has(list []Artifact, digest string) (Artifact, bool) {
	i := slices.IndexFunc(list, func(a Artifact) bool { return digest != "" && a.Digest == digest })
	if i < 0 {
		return Artifact{}, false
	}
	return list[i], true
}

func unread(err error) error {
	return messages.Errorf(messages.CodeBadRequest, "read the artifact: %v", err)
}

// Remove removes an artifact. Agents that have it keep it for as long as a task names it.
func Remove(ctx context.Context, b *bus.Bus, a Artifact) error {
	return b.RemoveObject(ctx, bus.Artifacts, jetstream.ObjectInfo{ObjectMeta: jetstream.ObjectMeta{Name: a.Digest}, NUID: a.object})
}

// UnfinishedAfter is when a push that stores nothing any more counts as dead: what it reads,
// a pipe for example, may pause.
const UnfinishedAfter = time.Hour

// Unfinished returns what pushes have left whose processes died in the midst; idle is for how
// long they must have stored nothing.
func Unfinished(ctx context.Context, b *bus.Bus, idle time.Duration) (list []bus.Leftover, bytes int64, err error) {
	all, err := b.Leftovers(ctx, bus.Artifacts)
	for _, l := range all {
		if l.Idle >= idle {
			list, bytes = append(list, l), bytes+l.Bytes
		}
	}
	return list, bytes, err
}

// RemoveUnfinished removes them, and returns how many bytes that were, at most.
func RemoveUnfinished(ctx context.Context, b *bus.Bus, idle time.Duration) (n int, bytes int64, err error) {
	list, bytes, err := Unfinished(ctx, b, idle)
	if err != nil {
		return 0, 0, err
	}
	for _, l := range list {
		if err := b.DropLeftover(ctx, bus.Artifacts, l.Object); err != nil {
			return 0, 0, err
		}
	}
	return len(list), bytes, nil
}

// Get writes an artifact to w, verified: an error says that what w got is not it.
func Get(ctx context.Context, b *bus.Bus, digest string, w io.Writer) (Artifact, error) {
	a, err := Find(ctx, b, digest)
	if err != nil {
		return a, err
	}
	err = bodyfile.Copy(ctx, b, bus.Artifacts, a.Body(), w)
	return a, err
}
