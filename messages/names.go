package messages

import (
	"fmt"
	"strings"
)

// MaxName is the most bytes a name may have. Names become subject tokens, stream
// and bucket names; 64 keeps the longest subject we build under 512 bytes.
const MaxName = 64

// DefaultSite is the site of everything that names none.
const DefaultSite = "main"

// FleetSite is the token that stands in the place of the site on subjects that
// concern the whole fleet (routes, events, control). [CheckName] refuses it, so
// no site can be called that.
const FleetSite = "_fleet"

// CheckName reports whether name may be used as the name of what (a fleet, a
// site, an agent, a task, an origin, a key, …). Allowed are 1 to 64 ASCII
// letters, digits, "-" and "_"; the first and the last must be a letter or a
// digit, and "__" is ours (it separates the parts of stream and bucket names).
// The error is an [*Error] with code bad_request.
func CheckName(what, name string) error {
	refuse := func(why string) error {
		return Errorf(CodeBadRequest, "%s name %q: %s; allowed are 1 to %d letters, digits, '-' and '_', starting and ending with a letter or digit, without \"__\"", what, shorten(name), why, MaxName)
	}
	if name == "" {
		return refuse("it is empty")
	}
	if len(name) > MaxName {
		return refuse(fmt.Sprintf("it has %d bytes", len(name)))
	}
	for i := range len(name) {
		if c := name[i]; !alnum(c) && c != '-' && c != '_' {
			return refuse(fmt.Sprintf("character %d is %q", i+1, rune(c)))
		}
	}
	if !alnum(name[0]) || !alnum(name[len(name)-1]) {
		return refuse("it starts or ends with '-' or '_'")
	}
	if strings.Contains(name, "__") {
		return refuse("it contains \"__\"")
	}
	return nil
}

func alnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// shorten keeps hostile names from flooding a log line.
func shorten(s string) string {
	if len(s) > MaxName+16 {
		return s[:MaxName] + "…"
	}
	return s
}
