package main

import (
	"context"
	"errors"
)

func asynq(context.Context, *stage, bool) (side, func(), error) {
	return nil, nil, errors.New("later")
}
