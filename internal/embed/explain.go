package embed

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"

	"github.com/fleetbus/fleetbus/messages"
)

// listenError explains why an address could not be bound.
func listenError(what, address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return messages.Errorf(messages.CodeConflict, "listen for %s on %s: another program has that port (perhaps another `fleetbus up` or nats-server); stop it, or choose another port", what, address)
	case errors.Is(err, fs.ErrPermission):
		return messages.Errorf(messages.CodeUnavailable, "listen for %s on %s: not permitted; ports under 1024 need privileges, choose a higher one", what, address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return messages.Errorf(messages.CodeUnavailable, "listen for %s on %s: this machine has no such address; choose one of its own, or 0.0.0.0 for all", what, address)
	}
	return messages.Errorf(messages.CodeUnavailable, "listen for %s on %s: %v; check the address", what, address, err)
}

// storeError explains why a storage directory could not be used.
func storeError(dir string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return messages.Errorf(messages.CodeUnavailable, "use %s as storage directory: not writable by this user; change its owner, or name another directory", dir)
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrExist):
		return messages.Errorf(messages.CodeUnavailable, "use %s as storage directory: it, or a part of the path, is a file; name a directory", dir)
	case errors.Is(err, syscall.ENOSPC):
		return messages.Errorf(messages.CodeUnavailable, "use %s as storage directory: the disk is full; free some space, or name a directory on another disk", dir)
	}
	return messages.Errorf(messages.CodeUnavailable, "use %s as storage directory: %v", dir, err)
}

// startError explains a fatal message of the server. What could be checked before the
// start has been; this is the rest, and races with other programs.
func (o Options) startError(why string) error {
	switch {
	case strings.Contains(why, "address already in use"):
		return messages.Errorf(messages.CodeConflict, "start the NATS server %s: %s; stop the program that has that port, or choose another", o.Name, why)
	case strings.Contains(why, "JetStream"):
		return messages.Errorf(messages.CodeUnavailable, "start the NATS server %s: %s; its storage directory is %s", o.Name, why, o.StoreDir)
	}
	return messages.Errorf(messages.CodeUnavailable, "start the NATS server %s: %s", o.Name, why)
}
