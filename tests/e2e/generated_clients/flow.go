// One flow with the client that oapi-codegen makes of /openapi-3.0.json.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/oapi-codegen/runtime/types"

	"wallet.example/flow/wallet"
)

func main() {
	log.SetFlags(0)
	if err := run(context.Background(), os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, url string) error {
	api, err := wallet.NewClientWithResponses(url)
	if err != nil {
		return err
	}
	created, err := api.CreateWalletWithResponse(ctx, nil, wallet.CreateWallet{})
	if err != nil || created.JSON201 == nil {
		return fmt.Errorf("create: %v %s", err, created.Body)
	}
	opened := created.JSON201
	fmt.Printf("created: %s %s %s\n", opened.Currency, opened.Status, opened.Balance)

	done := wallet.NewTransferStatus("completed")
	debit, err := api.DebitWalletWithResponse(
		ctx, opened.Id, nil, wallet.CreateTransfer{Amount: "10.50", Status: &done})
	if err != nil || debit.JSON201 == nil {
		return fmt.Errorf("debit: %v %s", err, debit.Body)
	}
	fmt.Printf("debited: %s %s, balance %s\n",
		debit.JSON201.Amount, debit.JSON201.Status, debit.JSON201.Wallet.Balance)

	key := "hold-" + opened.Id.String()
	hold := func() (*wallet.CreditWalletResponse, error) {
		return api.CreditWalletWithResponse(ctx, opened.Id,
			&wallet.CreditWalletParams{IdempotencyKey: &key}, wallet.CreateTransfer{Amount: "4.00"})
	}
	first, err := hold()
	if err != nil || first.JSON201 == nil {
		return fmt.Errorf("hold: %v %s", err, first.Body)
	}
	again, err := hold()
	if err != nil || again.JSON201 == nil || again.JSON201.Id != first.JSON201.Id {
		return fmt.Errorf("a replay is the first response: %v %s", err, again.Body)
	}
	fmt.Printf("held: %s %s, replayed %s\n", first.JSON201.Amount, first.JSON201.Status,
		again.HTTPResponse.Header.Get("Idempotency-Replayed"))

	completed, err := api.CompleteTransferWithResponse(
		ctx, opened.Id, first.JSON201.Id, nil, wallet.SettleTransfer{})
	if err != nil || completed.JSON200 == nil {
		return fmt.Errorf("complete: %v %s", err, completed.Body)
	}
	fmt.Printf("completed: %s, balance %s\n",
		completed.JSON200.Status, completed.JSON200.Wallet.Balance)

	listed, err := list(ctx, api, completed.JSON200.WalletId, completed.JSON200.Wallet.Version)
	if err != nil {
		return err
	}
	fmt.Printf("listed: %s\n", strings.Join(listed, " "))

	refused, err := api.CreditWalletWithResponse(
		ctx, opened.Id, nil, wallet.CreateTransfer{Amount: "100", Status: &done})
	if err != nil || refused.ApplicationproblemJSON409 == nil {
		return fmt.Errorf("refused: %v %s", err, refused.Body)
	}
	fmt.Printf("refused: %d %s\n",
		refused.StatusCode(), refused.ApplicationproblemJSON409.Code)
	return batch(ctx, api, opened.Id)
}

func list(
	ctx context.Context, api *wallet.ClientWithResponses, id types.UUID, version int64,
) ([]string, error) {
	found, limit := []string{}, 1
	var cursor *string
	for {
		page, err := api.ListTransfersWithResponse(ctx, id,
			&wallet.ListTransfersParams{Limit: &limit, Cursor: cursor, MinVersion: &version})
		if err != nil || page.JSON200 == nil {
			return nil, fmt.Errorf("list: %v %s", err, page.Body)
		}
		for _, transfer := range page.JSON200.Items {
			found = append(found, string(transfer.Type))
		}
		if cursor = page.JSON200.NextCursor; cursor == nil {
			return found, nil
		}
	}
}

func batch(ctx context.Context, api *wallet.ClientWithResponses, id types.UUID) error {
	done := wallet.NewTransferStatus("completed")
	var in, out wallet.BatchItem
	if err := in.FromBatchTransfer(wallet.BatchTransfer{Type: wallet.TransferType("debit"), Amount: "1.00", Status: &done}); err != nil {
		return err
	}
	if err := out.FromBatchTransfer(wallet.BatchTransfer{Type: wallet.TransferType("credit"), Amount: "100"}); err != nil {
		return err
	}
	answer, err := api.WalletBatchWithResponse(
		ctx, id, nil, wallet.WalletBatch{Items: []wallet.BatchItem{in, out}})
	if err != nil || answer.JSON200 == nil || answer.JSON200.Wallet == nil {
		return fmt.Errorf("batch: %v %s", err, answer.Body)
	}
	results := []string{}
	for _, item := range answer.JSON200.Items {
		if item.Transfer != nil {
			results = append(results, string(item.Transfer.Status))
		} else {
			results = append(results, string(item.Problem.Code))
		}
	}
	fmt.Printf("batch: %s, balance %s\n",
		strings.Join(results, " "), answer.JSON200.Wallet.Balance)
	return nil
}
