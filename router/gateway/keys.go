package gateway

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"github.com/fleetbus/fleetbus/messages"
)

// maxKeys bounds how many keys a door compares with.
const maxKeys = 1000

// Keys are who may enter a door. The zero value lets everybody in.
type Keys struct{ sums [][sha256.Size]byte }

// ParseKeys reads keys, one a line; empty lines and those that begin with # are left out.
// A key is 8 to 512 printable characters without spaces.
func ParseKeys(text []byte) (Keys, error) {
	var k Keys
	for n, line := range bytes.Split(text, []byte("\n")) {
		key := strings.TrimSpace(string(line))
		switch {
		case key == "" || key[0] == '#':
			continue
		case len(key) < 8 || len(key) > 512 || strings.ContainsFunc(key, func(c rune) bool { return c <= ' ' || c > '~' }):
			return Keys{}, messages.Errorf(messages.CodeBadRequest, "line %d is no key: found %d bytes, expected 8 to 512 printable characters without spaces", n+1, len(key))
		case len(k.sums) == maxKeys:
			return Keys{}, messages.Errorf(messages.CodeBadRequest, "found more than %d keys", maxKeys)
		}
		k.sums = append(k.sums, sha256.Sum256([]byte(key)))
	}
	if len(k.sums) == 0 {
		return Keys{}, messages.Errorf(messages.CodeBadRequest, "found no key; expected one a line")
	}
	return k, nil
}

// Any reports whether there are keys at all.
func (k Keys) Any() bool { return len(k.sums) > 0 }

// Allow reports whether a request may enter: "Authorization: Api-Key …", as openpi's
// clients send it, or "Bearer …". It takes as long for a wrong key as for a right one.
func (k Keys) Allow(r *http.Request) bool {
	if !k.Any() {
		return true
	}
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	sum := sha256.Sum256([]byte(strings.TrimSpace(key)))
	found := 0
	for i := range k.sums {
		found |= subtle.ConstantTimeCompare(sum[:], k.sums[i][:])
	}
	return found == 1 && (strings.EqualFold(scheme, "Api-Key") || strings.EqualFold(scheme, "Bearer"))
}
