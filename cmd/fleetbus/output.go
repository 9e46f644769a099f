package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/spf13/cobra"
)

// printf writes to standard output.
func printf(cmd *cobra.Command, format string, args ...any) {
	fmt.Fprintf(cmd.OutOrStdout(), format, args...)
}

// notef writes to standard error what is not part of the answer.
func notef(cmd *cobra.Command, format string, args ...any) {
	fmt.Fprintf(cmd.ErrOrStderr(), format, args...)
}

// printJSON writes v as one indented object.
func (a *app) printJSON(cmd *cobra.Command, v any) error {
	enc := json.NewEncoder(cmd.OutOrStdout())
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return writing(enc.Encode(v))
}

// printLine writes v as one line of JSON.
func printLine(cmd *cobra.Command, v any) error {
	enc := json.NewEncoder(cmd.OutOrStdout())
	enc.SetEscapeHTML(false)
	return writing(enc.Encode(v))
}

func writing(err error) error {
	if err != nil {
		return fmt.Errorf("write the answer to standard output: %w", err)
	}
	return nil
}

// table collects rows and writes them aligned. The last column is not padded.
type table struct {
	rows [][]string
}

func newTable(header ...string) *table { return &table{rows: [][]string{header}} }

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) print(cmd *cobra.Command) error {
	// Two spaces between columns: enough for the eye, and 80 columns hold more.
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	for _, row := range t.rows {
		for i, cell := range row {
			if cell == "" {
				row[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return writing(w.Flush())
}

// number writes a figure as short as it is exact to three places.
func number(v float64) string {
	return strings.TrimSuffix(strings.TrimRight(strconv.FormatFloat(v, 'f', 3, 64), "0"), ".")
}

// millis writes a time in milliseconds to three figures; 0 is unknown.
func millis(v float64) string {
	switch {
	case v == 0:
		return ""
	case v >= 10_000:
		return messages.Millis(v).Round(time.Second).String()
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64) + " ms"
	case v >= 10:
		return number(math.Round(v*10)/10) + " ms"
	case v >= 1:
		return number(math.Round(v*100)/100) + " ms"
	}
	return number(v) + " ms"
}

// share writes how much of a capacity is used.
func share(used, capacity float64) string {
	return number(used) + "/" + number(capacity)
}

// logger makes the logger that the shared flags ask for. What is printed on standard
// output is the answer; the log goes to w, standard error.
func (a *app) logger(level slog.Level, w io.Writer) (*slog.Logger, error) {
	if a.logLevel != "" {
		if err := level.UnmarshalText([]byte(a.logLevel)); err != nil {
			return nil, usagef("--log-level: found %q, allowed are debug, info, warn, error", a.logLevel)
		}
	}
	options := &slog.HandlerOptions{Level: level}
	switch a.logFormat {
	case "text", "":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, usagef("--log-format: found %q, allowed are text, json", a.logFormat)
}

// serviceLog is the logger of commands that run until they are stopped.
func (a *app) serviceLog(cmd *cobra.Command) *slog.Logger { return a.mustLog(cmd, slog.LevelInfo) }

// shortLog is the logger of commands that ask one thing: their reader wants the answer.
func (a *app) shortLog(cmd *cobra.Command) *slog.Logger { return a.mustLog(cmd, slog.LevelWarn) }

// mustLog relies on complete, which has checked the flags before any command runs.
func (a *app) mustLog(cmd *cobra.Command, level slog.Level) *slog.Logger {
	log, err := a.logger(level, cmd.ErrOrStderr())
	if err != nil {
		return slog.Default()
	}
	return log
}

// levelQuiet is above every level that we log at.
const levelQuiet = slog.LevelError + 4
