package avro_test

import (
	"fmt"
	"testing/fstest"

	"github.com/outboxkit/outboxkit/schema/avro"
)

// Files of a folder refer to each other's types.
func ExampleLoad() {
	files, err := avro.Load(fstest.MapFS{ // usually an embed.FS; avro.Open for a folder
		"money.avsc": {Data: []byte(`{"type":"record","name":"shop.Money","fields":[{"name":"cents","type":"long"}]}`)},
		"order.avsc": {Data: []byte(`{"type":"record","name":"shop.Order","fields":[{"name":"total","type":"Money"}]}`)},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	order := files.MustCodec("shop.Order")
	data, err := order.EncodeJSON([]byte(`{"total": {"cents": 1999}}`))
	fmt.Printf("%x %v\n", data, err)
	_, err = order.EncodeJSON([]byte(`{"total": {"cents": "1999"}}`))
	fmt.Println(err)
	// Output:
	// 9e1f <nil>
	// total.cents is "1999", which is not a long
}

func ExampleCompare() {
	v1 := avro.MustParse(`{"type":"record","name":"Order","fields":[{"name":"id","type":"string"}]}`)
	v2 := avro.MustParse(`{"type":"record","name":"Order","fields":[{"name":"id","type":"string"},{"name":"qty","type":"int"}]}`)
	problems, err := avro.Compare(v2.Schema(), v1.Schema()) // reader, writer
	fmt.Println(problems[0].Path, problems[0].Rule, err)
	// Output: qty MISSING_DEFAULT <nil>
}
