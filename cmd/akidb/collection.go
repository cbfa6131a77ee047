// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/akidb/akidb/client"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

func newCollection() *cobra.Command {
	var conn connection
	cmd := group(&cobra.Command{Use: "collection", Short: "Create, list, describe and delete collections"})
	conn.addFlags(cmd)
	asJSON := cmd.PersistentFlags().Bool("json", false, "print JSON")
	cmd.AddCommand(newCollectionCreate(&conn, asJSON), newCollectionList(&conn, asJSON),
		newCollectionDescribe(&conn, asJSON), newCollectionDelete(&conn))
	return cmd
}

// indexFlags are the parameters of a new collection.
type indexFlags struct {
	metric, quantization string
	m, efConstruction    uint32
	efSearch             uint32
	onDisk               bool
	fields               []string
}

func (x *indexFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&x.metric, "metric", "", "cosine, dot or l2")
	f.StringVar(&x.quantization, "quantization", "", "codes that the graph is walked on: none, sq8 (the default), or rabitq, faster where codes exceed the CPU cache, for 1.4 kB or more per vector")
	f.Uint32Var(&x.m, "m", 0, "edges of a vertex (default 16)")
	f.Uint32Var(&x.efConstruction, "ef-construction", 0, "candidates while building (default 200)")
	f.Uint32Var(&x.efSearch, "ef-search", 0, "candidates while searching (default: by recall target 0.99)")
	f.BoolVar(&x.onDisk, "vectors-on-disk", false, "keep float32 vectors on disk only and re-rank from there")
	f.StringSliceVar(&x.fields, "payload-index", nil, "key:type of a payload field; types keyword, integer, float, bool, datetime, geo")
}

func (x *indexFlags) request(name string, dim int) (*collectionv1.CreateCollectionRequest, error) {
	if dim < 1 {
		return nil, fmt.Errorf("--dimension: must be at least 1, not %d", dim)
	}
	r := &collectionv1.CreateCollectionRequest{Name: name, Dimension: uint32(dim), Metric: x.metric,
		Index: &collectionv1.IndexParams{M: x.m, EfConstruction: x.efConstruction, EfSearch: x.efSearch, Quantization: x.quantization}}
	if x.onDisk {
		inRAM := false
		r.Index.VectorsInRam = &inRAM
	}
	for _, f := range x.fields {
		key, kind, ok := strings.Cut(f, ":")
		if !ok {
			return nil, fmt.Errorf("--payload-index %q: want key:type", f)
		}
		r.PayloadIndexes = append(r.PayloadIndexes, &collectionv1.PayloadIndex{Key: key, Type: kind})
	}
	return r, nil
}

func newCollectionCreate(conn *connection, asJSON *bool) *cobra.Command {
	var x indexFlags
	var dim int
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Create a collection", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := x.request(args[0], dim)
			if err != nil {
				return err
			}
			return conn.with(func(cl *client.Client) error {
				out, err := cl.CreateCollection(cmd.Context(), req)
				if err != nil {
					return err
				}
				if *asJSON {
					return printJSON(cmd.OutOrStdout(), out)
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "created %s (%s): %d dimensions, %s\n", out.Name, out.CollectionId, out.Dimension, out.Metric)
				return err
			})
		},
	}
	x.add(cmd)
	cmd.Flags().IntVar(&dim, "dimension", 0, "numbers in a vector")
	_ = cmd.MarkFlagRequired("dimension")
	_ = cmd.MarkFlagRequired("metric")
	return cmd
}

func newCollectionList(conn *connection, asJSON *bool) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List collections", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return conn.with(func(cl *client.Client) error {
				out, err := cl.ListCollections(cmd.Context(), &collectionv1.ListCollectionsRequest{})
				if err != nil {
					return err
				}
				if *asJSON {
					return printJSON(cmd.OutOrStdout(), out)
				}
				tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(tw, "NAME\tID\tDIMENSION\tMETRIC\tDOCUMENTS\tCREATED")
				for _, c := range out.Collections {
					fmt.Fprintf(tw, "%s\t%s\t%d\t%s\t%d\t%s\n", c.Name, c.CollectionId, c.Dimension, c.Metric, c.DocumentCount, c.CreatedAt)
				}
				return tw.Flush()
			})
		},
	}
}

func newCollectionDescribe(conn *connection, asJSON *bool) *cobra.Command {
	return &cobra.Command{
		Use: "describe NAME", Aliases: []string{"get"}, Short: "Show a collection and the state of its index", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return conn.with(func(cl *client.Client) error {
				d, err := cl.Describe(cmd.Context(), &collectionv1.DescribeRequest{CollectionId: args[0]})
				if err != nil {
					return err
				}
				if *asJSON {
					return printJSON(cmd.OutOrStdout(), d)
				}
				tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintf(tw, "name\t%s\nid\t%s\ndimension\t%d\nmetric\t%s\ndocuments\t%d\ncreated\t%s\n", d.Name, d.CollectionId, d.Dimension, d.Metric, d.DocumentCount, d.CreatedAt)
				fmt.Fprintf(tw, "index\tm %d, ef_construction %d, ef_search %d, quantization %s\n", d.GetIndex().GetM(), d.GetIndex().GetEfConstruction(), d.GetIndex().GetEfSearch(), d.GetIndex().GetQuantization())
				st := d.GetIndexStatus()
				fmt.Fprintf(tw, "graph on %s\t%d of %d vectors, %d garbage, %.1f MiB, hash %s\n", d.ServedBy, st.GetGraphed(), st.GetTotal(), st.GetGarbage(), float64(st.GetMemoryBytes())/(1<<20), st.GetGraphHash())
				for _, p := range d.PayloadIndexes {
					fmt.Fprintf(tw, "payload index\t%s: %s\n", p.Key, p.Type)
				}
				return tw.Flush()
			})
		},
	}
}

func newCollectionDelete(conn *connection) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Delete a collection with all its documents", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !yes {
				return fmt.Errorf("this deletes %q with all its documents for ever; say --yes", args[0])
			}
			return conn.with(func(cl *client.Client) error {
				if _, err := cl.DeleteCollection(cmd.Context(), &collectionv1.DeleteCollectionRequest{CollectionId: args[0]}); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "deleted %s\n", args[0])
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	return cmd
}
