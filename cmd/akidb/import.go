// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/akidb/akidb/client"
	"github.com/akidb/akidb/cmd/akidb/internal/vecfile"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// importJob is one file that goes into one collection.
type importJob struct {
	collection string
	path       string // a file, or the folder of a benchmark data set
	payload    string
	file       vecfile.Options
	index      indexFlags
	idPrefix   string
	batch      int
	batchBytes int
	inFlight   int
	limit      int // rows; 0: all
	stateDir   string
	restart    bool
	// collectionID is filled in by prepare.
	collectionID string
}

// importResult says what an import did.
type importResult struct {
	Rows    int     `json:"rows"`
	Resumed int     `json:"resumed_at"`
	Created int     `json:"created"`
	Seconds float64 `json:"seconds"`
}

func newImport() *cobra.Command {
	var conn connection
	var job importJob
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "import COLLECTION FILE",
		Short: "Fill a collection from a file of vectors",
		Long: `import upserts the rows of a file: fvecs, bvecs, npy, jsonl, ann-benchmarks HDF5, or
the folder of a benchmark data set. The id of a row is its "id" field (jsonl) or
its number. The collection is created if it is not there: only then do the flags
of its index count.

An import that was interrupted goes on where it stopped when it is started again:
a state file remembers the rows that are committed, and batches keep their
request ids, so no row is applied twice. A file that is cut off or wrong in the
middle is an error that names the row; whole batches before it are committed.`,
		Example: `  akidb import fashion fashion-mnist-784-euclidean.hdf5
  akidb import notes base.fvecs --payload payload.jsonl --metric cosine
  akidb import notes docs.jsonl --vector-field embedding --metric cosine`,
		Args: exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			job.collection, job.path = args[0], args[1]
			return conn.with(func(cl *client.Client) error {
				res, err := job.run(cmd.Context(), cl, newProgress(cmd.ErrOrStderr()))
				if err != nil {
					return err
				}
				if asJSON {
					return writeJSON(cmd.OutOrStdout(), res)
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "imported %d rows into %s (%d new) in %.1f s, %.0f rows/s%s\n", res.Rows, job.collection, res.Created,
					res.Seconds, float64(res.Rows)/max(res.Seconds, 1e-9), resumedNote(res.Resumed))
				return err
			})
		},
	}
	conn.addFlags(cmd)
	job.index.add(cmd)
	f := cmd.Flags()
	f.StringVar(&job.payload, "payload", "", "file of payloads, one JSON object a line, in the order of the rows")
	f.StringVar(&job.file.Format, "format", "", "fvecs, bvecs, npy, jsonl or hdf5 (default: by the file's name)")
	f.StringVar(&job.file.Dataset, "dataset", "", "of HDF5 (default train)")
	f.StringVar(&job.file.IDField, "id-field", "", "of jsonl (default id)")
	f.StringVar(&job.file.VectorField, "vector-field", "", "of jsonl (default vector)")
	f.StringVar(&job.idPrefix, "id-prefix", "", "put before row numbers")
	f.IntVar(&job.batch, "batch", 500, "rows in one log entry")
	f.IntVar(&job.inFlight, "in-flight", 4, "batches under way at once")
	f.IntVar(&job.limit, "limit", 0, "stop after so many rows")
	f.StringVar(&job.stateDir, "state-dir", "", "where the state of interrupted imports is kept (default: the user's cache)")
	f.BoolVar(&job.restart, "restart", false, "begin anew although an interrupted import is there")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func resumedNote(at int) string {
	if at == 0 {
		return ""
	}
	return fmt.Sprintf(", going on after row %d", at-1)
}

// progress draws how far a job is; nil draws nothing.
type progress func(total int) func(done int)

// newProgress draws a bar on a terminal and nothing elsewhere.
func newProgress(w io.Writer) progress {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return func(total int) func(int) {
		bar := progressbar.NewOptions(total, progressbar.OptionSetWriter(w), progressbar.OptionShowCount(), progressbar.OptionShowIts(),
			progressbar.OptionSetItsString("rows"), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish(), progressbar.OptionFullWidth())
		return func(done int) {
			_ = bar.Set(done) // a bar that cannot be drawn is no reason to stop
			if done < 0 || done == total {
				_ = bar.Finish()
			}
		}
	}
}

// run imports the file, or what is left of it.
func (j *importJob) run(ctx context.Context, cl *client.Client, draw progress) (res importResult, err error) {
	began := time.Now()
	if err := j.unfold(); err != nil {
		return res, err
	}
	r, err := vecfile.Open(j.path, j.file)
	if err != nil {
		return res, err
	}
	defer r.Close()
	var payloads *vecfile.Payloads
	if j.payload != "" {
		if payloads, err = vecfile.OpenPayloads(j.payload); err != nil {
			return res, err
		}
		defer payloads.Close()
	}
	first, rest, err := peek(r)
	if err != nil {
		return res, err
	}
	if err := j.prepare(ctx, cl, first, r.Metric()); err != nil {
		return res, err
	}
	st, err := j.openState()
	if err != nil {
		return res, err
	}
	if res.Resumed = st.Rows; res.Resumed > 0 {
		if err := skipTo(r, payloads, res.Resumed); err != nil {
			return res, err
		}
		rest = func(row *vecfile.Row) error { return r.Next(row) }
	}
	total := r.Rows()
	if j.limit > 0 && (total < 0 || total > j.limit) {
		total = j.limit
	}
	in := j.ingest(ctx, cl, st, total, draw)
	err = j.feed(in, rest, payloads, res.Resumed)
	sum, closeErr := in.Close() // sends no part of a batch that feed did not end
	res.Rows, res.Created, res.Seconds = sum.Documents, sum.Created, time.Since(began).Seconds()
	if closeErr != nil { // it says more than what Add returned
		err = closeErr
	}
	if err != nil {
		return res, errors.Join(j.explain(err, res.Resumed, res.Resumed+sum.Documents), st.save())
	}
	return res, st.remove()
}

// unfold turns the folder of a data set into its files.
func (j *importJob) unfold() error {
	info, err := os.Stat(j.path)
	if err != nil || !info.IsDir() {
		return err
	}
	folder, err := vecfile.OpenFolder(j.path)
	if err != nil {
		return err
	}
	j.path = folder.Base
	if j.payload == "" {
		j.payload = folder.Payload
	}
	if j.index.metric == "" {
		j.index.metric = folder.Metric
	}
	return nil
}

// peek reads the first row, since only that tells the dimension of some files,
// and returns it again with the others.
func peek(r vecfile.Reader) (first vecfile.Row, rest func(*vecfile.Row) error, err error) {
	if err := r.Next(&first); err == io.EOF {
		return first, nil, errors.New("the file has no rows")
	} else if err != nil {
		return first, nil, err
	}
	again := true
	return first, func(row *vecfile.Row) error {
		if again {
			again = false
			*row = first
			return nil
		}
		return r.Next(row)
	}, nil
}

// skipTo passes over the rows that an earlier run committed; peek took one.
func skipTo(r vecfile.Reader, payloads *vecfile.Payloads, row int) error {
	if err := r.Skip(row - 1); err != nil {
		return err
	}
	if payloads != nil {
		return payloads.Skip(row)
	}
	return nil
}

// prepare finds the collection or makes it, and compares its dimension.
func (j *importJob) prepare(ctx context.Context, cl *client.Client, first vecfile.Row, metric string) error {
	got, err := cl.GetCollection(ctx, &collectionv1.GetCollectionRequest{CollectionId: j.collection})
	if client.Code(err) == codes.NotFound {
		if j.index.metric == "" {
			j.index.metric = metric
		}
		if j.index.metric == "" {
			return fmt.Errorf("there is no collection %q, and the file does not say its metric: give --metric to create it", j.collection)
		}
		req, err := j.index.request(j.collection, len(first.Vector))
		if err != nil {
			return err
		}
		made, err := cl.CreateCollection(ctx, req)
		if err != nil {
			return err
		}
		j.collectionID = made.CollectionId
		return nil
	}
	if err != nil {
		return err
	}
	if dim := int(got.Collection.Dimension); dim != len(first.Vector) {
		return fmt.Errorf("collection %q has dimension %d, the rows of %s have %d", j.collection, dim, j.path, len(first.Vector))
	}
	if want := j.index.metric; want != "" && !strings.EqualFold(want, got.Collection.Metric) {
		return fmt.Errorf("collection %q has metric %s, not %s; --metric %s imports into it all the same", j.collection, got.Collection.Metric, want, got.Collection.Metric)
	}
	j.collectionID = got.Collection.CollectionId
	return nil
}

// ingest begins the stream; what it acknowledges goes to the state file.
func (j *importJob) ingest(ctx context.Context, cl *client.Client, st *importState, total int, draw progress) *client.Ingest {
	done := func(int) {}
	if draw != nil && total > 0 {
		done = draw(total)
	}
	base := st.Rows
	return cl.Ingest(ctx, j.collectionID, client.IngestOptions{
		BatchDocs: j.batch, BatchBytes: j.batchBytes, InFlight: j.inFlight,
		// A batch is known by its first row, so a resumed run gives the batches
		// that were under way the ids they had.
		RequestID: func(_, first int) string { return st.requestID(base + first) },
		Acked: func(docs int) {
			st.acked(base + docs)
			done(base + docs)
		},
	})
}

// A batch is read whole before any of it is sent, so that a row that cannot be
// read costs its whole batch. It ends where Ingest would end it, by default.
const (
	defaultBatchRows  = 500
	defaultBatchBytes = 8 << 20
)

// feed adds the rows from number `from` on, a whole batch at a time.
func (j *importJob) feed(in *client.Ingest, next func(*vecfile.Row) error, payloads *vecfile.Payloads, from int) error {
	rows, size := cmp.Or(j.batch, defaultBatchRows), cmp.Or(j.batchBytes, defaultBatchBytes)
	var batch []*collectionv1.UpsertRequest
	bytes := 0
	for n, more := from, true; more; {
		doc, err := j.read(next, payloads, n)
		switch {
		case err == io.EOF:
			more = false
		case err != nil:
			return err
		default:
			n++
			batch, bytes = append(batch, doc), bytes+proto.Size(doc)
		}
		if more && len(batch) < rows && bytes < size {
			continue
		}
		for _, doc := range batch {
			if err := in.Add(doc); err != nil {
				return err
			}
		}
		batch, bytes = batch[:0], 0
	}
	return nil
}

// read makes a document of row n and its payload; io.EOF after the last.
func (j *importJob) read(next func(*vecfile.Row) error, payloads *vecfile.Payloads, n int) (*collectionv1.UpsertRequest, error) {
	if j.limit > 0 && n >= j.limit {
		return nil, io.EOF
	}
	var row vecfile.Row
	if err := next(&row); err == io.EOF {
		return nil, cmp.Or(payloadsEnd(payloads, j.payload, n), io.EOF)
	} else if err != nil {
		return nil, err
	}
	if payloads != nil {
		line, err := payloads.Next()
		if err == io.EOF {
			return nil, fmt.Errorf("%s: it has %d rows, row %d of %s has no payload", j.payload, n, n, j.path)
		}
		if err != nil {
			return nil, err
		}
		row.Payload = line
	}
	id := row.ID
	if id == "" {
		id = j.idPrefix + strconv.Itoa(n)
	}
	doc := &collectionv1.UpsertRequest{DocId: id, Vector: row.Vector}
	if row.Payload != nil {
		doc.Metadata = &collectionv1.Json{Raw: row.Payload}
	}
	return doc, nil
}

// payloadsEnd refuses payloads that belong to no row: probably to another file.
func payloadsEnd(p *vecfile.Payloads, path string, rows int) error {
	if p == nil {
		return nil
	}
	if _, err := p.Next(); err != io.EOF {
		return fmt.Errorf("%s: it has more than the %d rows of the vectors", path, rows)
	}
	return nil
}

// explain turns places in the stream into rows of the file, and says of a file
// that cannot be read how far it came.
func (j *importJob) explain(err error, resumed, committed int) error {
	if ie, ok := errors.AsType[*client.IngestError](err); ok {
		return fmt.Errorf("%s: rows %d to %d: %w; the first %d rows are committed, start the same command again to go on",
			filepath.Base(j.path), resumed+ie.First, resumed+ie.First+ie.Docs-1, ie.Err, resumed+ie.Acked)
	}
	return fmt.Errorf("%w; the first %d rows are committed", err, committed)
}
