package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// bodyFlags say where the body of a request comes from.
type bodyFlags struct{ data, file string }

func (b *bodyFlags) define(cmd *cobra.Command) {
	cmd.Flags().StringVar(&b.data, "data", "", "the body: `TEXT`, @FILE, or - for standard input")
	cmd.Flags().StringVar(&b.file, "file", "", "the body from a `FILE`")
}

// read returns the body, byte for byte.
func (b bodyFlags) read(cmd *cobra.Command) ([]byte, error) {
	file := b.file
	switch {
	case b.data != "" && b.file != "":
		return nil, usagef("--data, --file: found both, allowed is one")
	case b.data == "-" || b.file == "-":
		body, err := io.ReadAll(cmd.InOrStdin())
		if err != nil {
			return nil, fmt.Errorf("read the body from standard input: %w", err)
		}
		return body, nil
	case strings.HasPrefix(b.data, "@"):
		file = b.data[1:]
	case file == "":
		return []byte(b.data), nil
	}
	body, err := os.ReadFile(file)
	if err != nil {
		return nil, usageError{fmt.Errorf("read the body: %w", err)}
	}
	return body, nil
}
