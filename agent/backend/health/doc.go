// Package health decides whether a model server that somebody else runs is alive. It is
// pure: backends ask the server, and do as it says.
package health
