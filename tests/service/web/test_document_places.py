from service.web.views.document_places import Place, nearest, places

TEXT = """\
name: é: x
model:
  num_layers: {min: 2, max: wide}
  attention:
    bias: yes
objectives:
  - {metric: a}
  - metric: b
    goal: c
"""


def test_each_value_has_its_place():
    found = places(TEXT.replace("é: x", "é x"))
    assert found["/name"] == Place(1, 6, 9)
    assert found["/model"] == Place(2, 0, 5), "its name, where it has several lines"
    assert found["/model/num_layers/max"] == Place(3, 28, 32)
    assert found["/model/attention/bias"] == Place(5, 10, 13)
    assert found["/objectives/0"] == Place(7, 4, 15)
    assert found["/objectives/1/goal"] == Place(9, 10, 11)


def test_what_is_not_written_is_placed_by_what_is_around_it():
    found = places("model: {attention: {}}")
    assert nearest(found, "/model/attention/num_attention_heads") == found["/model/attention"]
    assert nearest(found, "/budget/trials") is None


def test_a_text_that_cannot_be_read_is_placed_where_reading_ended():
    assert places("name: [a,\nb: ]\n\u007bc")[""].line == 3
    assert places(TEXT)[""].line == 1
    assert places("") == {}
    assert places("a\0b") == {}
