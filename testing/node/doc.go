// Package node proves docs/protocol.md from the outside: a Node client that was written
// from it alone asks a whole fleet (client.mjs), and agents and clients live with no
// more permissions than its templates give them.
//
// It needs Node.js and the packages of package-lock.json: `make deps` installs both.
package node
