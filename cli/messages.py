"""What the command says, in English and Japanese. Help texts and errors of the mesh are English."""

from collections.abc import Mapping

MESSAGES: Mapping[str, tuple[str, str]] = {
    "up.starting": ("Starting the mesh on {data} ...", "メッシュを起動しています（{data}）..."),
    "up.first": (
        "First start: made an ES256 key and the consumer '{consumer}'.",
        "初回起動: ES256 鍵とコンシューマー「{consumer}」を作成しました。",
    ),
    "up.leftover": (
        "Ended {name} (pid {pid}), left behind by an earlier run.",
        "以前の実行で残った {name}（pid {pid}）を終了しました。",
    ),
    "up.serving": ("Serving after {seconds:.1f} s.", "{seconds:.1f} 秒で稼働しました。"),
    "up.unavailable": (
        "Not available yet: {names}. The logs and /health say more; the rest of the mesh works.",
        "まだ使えないもの: {names}。詳しくはログと /health をご覧ください。ほかは使えます。",
    ),
    "up.url": ("URL     {url}", "URL     {url}"),
    "up.docs": ("docs    {url}/docs", "説明    {url}/docs"),
    "up.token": ("token   {path}", "トークン {path}"),
    "up.logs": ("logs    {path}", "ログ    {path}"),
    "up.try": ("Try it:", "試す:"),
    "up.background": (
        "The mesh runs in the background; `ragmesh down` ends it.",
        "メッシュはバックグラウンドで動いています。`ragmesh down` で終了します。",
    ),
    "up.foreground": ("Ctrl-C ends the mesh.", "Ctrl-C で終了します。"),
    "up.exited": (
        "{name} ended ({how}); starting it again in {delay:.1f} s. Log: {log}",
        "{name} が終了しました（{how}）。{delay:.1f} 秒後に再起動します。ログ: {log}",
    ),
    "up.recovered": ("{name} serves again.", "{name} が復旧しました。"),
    "up.stopping": ("Stopping ...", "停止しています ..."),
    "up.stopped": ("Stopped.", "停止しました。"),
    "up.killed": ("{name} did not end in time and was killed.", "{name} を強制終了しました。"),
    "down.none": ("No mesh runs on {data}.", "{data} で動いているメッシュはありません。"),
    "down.done": ("The mesh on {data} has ended.", "{data} のメッシュを終了しました。"),
    "demo.documents": (
        "Sample documents in collection '{collection}': {indexed} new, {unchanged} unchanged.",
        "コレクション「{collection}」のサンプル文書: 新規 {indexed}、変更なし {unchanged}。",
    ),
    "ask.confidence": ("confidence {value:.2f} · {model}", "確信度 {value:.2f} · {model}"),
    "ask.page": ("p. {page}", "{page} ページ"),
    "ingest.progress": ("Ingesting", "取り込み中"),
    "ingest.done": (
        "{indexed} indexed, {replaced} replaced, {unchanged} unchanged, {failed} failed "
        "in {seconds:.1f} s.",
        "登録 {indexed}、置換 {replaced}、変更なし {unchanged}、失敗 {failed}"
        "（{seconds:.1f} 秒）。",
    ),
    "ingest.none": (
        "No file of a known format under: {paths}",
        "取り込める形式のファイルがありません: {paths}",
    ),
    "rerank.not_applied": (
        "Not reranked ({reason}): the order is that of the search itself.",
        "リランクは行われませんでした（{reason}）。検索の順のまま表示します。",
    ),
    "search.none": ("Nothing found.", "見つかりませんでした。"),
    "doctor.fine": ("All is well.", "問題はありません。"),
    "doctor.bad": ("{count} problem(s) found.", "{count} 件の問題があります。"),
}


def message(key: str, language: str, /, **values: object) -> str:
    """A message, filled in. Raises KeyError for a key that does not exist."""
    english, japanese = MESSAGES[key]
    return (japanese if language == "ja" else english).format(**values)
