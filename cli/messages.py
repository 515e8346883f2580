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
    "ingest.chunks": ("{name}: chunks", "{name}: チャンク"),
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
    "collections.created": (
        "Made the collection '{name}'.",
        "コレクション「{name}」を作成しました。",
    ),
    "collections.deleted": (
        "Deleted the collection '{name}' with {documents} documents.",
        "コレクション「{name}」を文書 {documents} 件とともに削除しました。",
    ),
    "export.progress": ("Exporting", "書き出し中"),
    "export.partial": (
        "The file holds what this token may read. The operator's own token (admin.token) reads "
        "everything.",
        "このトークンで読める文書だけを書き出しました。すべてを読めるのは運用者のトークン"
        "（admin.token）です。",
    ),
    "export.done": (
        "{documents} documents, {chunks} chunks in {file} after {seconds:.1f} s.",
        "文書 {documents} 件、チャンク {chunks} 件を {file} に書き出しました（{seconds:.1f} 秒）。",
    ),
    "import.progress": ("Importing", "取り込み中"),
    "import.embeds": (
        "The vectors are those of {theirs}; {ours} is running, so the chunks are embedded anew.",
        "ベクトルは {theirs} のものです。稼働中は {ours} なので、チャンクを埋め込み直します。",
    ),
    "import.done": (
        "Collection '{collection}': {indexed} indexed, {replaced} replaced, {unchanged} "
        "unchanged, {embedded_chunks} chunks embedded in {seconds:.1f} s.",
        "コレクション「{collection}」: 登録 {indexed}、置換 {replaced}、変更なし {unchanged}、"
        "埋め込んだチャンク {embedded_chunks}（{seconds:.1f} 秒）。",
    ),
    "reindex.progress": ("Reindexing", "再構築中"),
    "reindex.fits": (
        "The collection '{collection}' is of {encoder} already; --force embeds it anew.",
        "コレクション「{collection}」はすでに {encoder} のものです。--force で埋め込み直します。",
    ),
    "reindex.full": (
        "{chunks} chunks fill what the encoder reads of a text; the end of some may be left out. "
        "Ingesting the documents again cuts them to fit.",
        "{chunks} 件のチャンクがエンコーダーの読める長さに達し、末尾が省かれた可能性があります。"
        "文書を取り込み直すと長さに合わせて分割されます。",
    ),
    "reindex.done": (
        "Made '{collection}' anew: {documents} documents, {chunks} chunks embedded in "
        "{seconds:.1f} s.",
        "「{collection}」を再構築しました: 文書 {documents} 件、埋め込んだチャンク {chunks} 件"
        "（{seconds:.1f} 秒）。",
    ),
    "rerank.not_applied": (
        "Not reranked ({reason}): the order is that of the search itself.",
        "リランクは行われませんでした（{reason}）。検索の順のまま表示します。",
    ),
    "search.none": ("Nothing found.", "見つかりませんでした。"),
    "sync.reading": ("Reading", "読み取り中"),
    "sync.progress": ("Syncing", "同期中"),
    "sync.kept": (
        "The source could not be listed whole, so {count} documents that may be gone were kept.",
        "同期元をすべては読めなかったため、失われた可能性のある文書 {count} 件を残しました。",
    ),
    "sync.done": (
        "{added} added, {changed} changed, {moved} moved, {deleted} deleted, {unchanged} "
        "unchanged, {skipped} left out, {failed} failed in {seconds:.1f} s.",
        "追加 {added}、変更 {changed}、移動 {moved}、削除 {deleted}、変更なし {unchanged}、"
        "対象外 {skipped}、失敗 {failed}（{seconds:.1f} 秒）。",
    ),
    "sync.would": (
        "Would be: {added} added, {changed} changed, {moved} moved, {deleted} deleted; "
        "{unchanged} unchanged, {skipped} left out, {failed} failed in {seconds:.1f} s.",
        "実行すると: 追加 {added}、変更 {changed}、移動 {moved}、削除 {deleted}。変更なし "
        "{unchanged}、対象外 {skipped}、失敗 {failed}（{seconds:.1f} 秒）。",
    ),
    "doctor.fine": ("All is well.", "問題はありません。"),
    "doctor.bad": ("{count} problem(s) found.", "{count} 件の問題があります。"),
}


def message(key: str, language: str, /, **values: object) -> str:
    """A message, filled in. Raises KeyError for a key that does not exist."""
    english, japanese = MESSAGES[key]
    return (japanese if language == "ja" else english).format(**values)
