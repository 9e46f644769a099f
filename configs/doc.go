// Package configs holds the example fleets, so that a single binary can show them. Every
// file is loaded by a test; the numbers in their comments are asserted there.
package configs

import "embed"

// Files are the example fleet files by name.
//
//go:embed *.yaml
var Files embed.FS
