# Polite style: desu, masu.

code-subject = { $app }の確認コード
sign-up-intro = メールアドレスを確認するため、次のコードを入力してください。
sign-in-intro = ログイン用のコードです。
email-intro = 新しいメールアドレスを確認するため、次のコードを入力してください。
or-open-link = または、次のリンクを開いてください。
confirm-button = アドレスを確認する
sign-in-button = ログインする
code-and-link-lifetime = コードの有効期間は{ $code_time }、リンクの有効期間は{ $link_time }です。
code-advice = お心当たりがない場合は、このメールを無視してください。何も変更されません。コードは誰にも教えないでください。

already-subject = { $app }のアカウントはすでに登録されています
already-text = このメールアドレスで{ $app }への登録が試みられましたが、このアドレスのアカウントはすでにあります。
already-advice = いつものようにログインしてください。パスワードをお忘れの場合は、ログイン画面から再設定してください。

password-subject = { $app }のパスワードの再設定
password-intro = 新しいパスワードを設定するには、次のリンクを開いてください。
password-button = パスワードを設定する
password-advice = お心当たりがない場合は、このメールを無視してください。パスワードは変更されません。
link-lifetime = リンクの有効期間は{ $time }です。

email-subject = { $app }の新しいメールアドレスの確認
email-asked-subject = { $app }のメールアドレスの変更が申請されました
email-asked-text = あなたのアカウントにログインしている人が、別のメールアドレスへの変更を申請しました。ご自身で申請した場合は、何もする必要はありません。
email-asked-intro = お心当たりがない場合は、次のリンクを開くと、このアドレスをそのまま使い続けられます。
email-asked-button = このアドレスを維持する
email-asked-advice = その後、新しいパスワードを設定し、ほかの端末からログアウトしてください。
email-changed-subject = { $app }のメールアドレスが変更されました
email-changed-text = アカウントのメールアドレスが変更されました。このアドレスは今後使用されません。
email-changed-advice = お心当たりがない場合は、すぐにこのメールに返信してください。
email-confirmed-text = このメールアドレスが{ $app }のアカウントに登録されました。今後はこのアドレスでログインしてください。

password-changed-subject = { $app }のパスワードが変更されました
password-changed-text = 新しいパスワードが設定され、ほかのすべての端末からログアウトしました。
password-changed-advice = お心当たりがない場合は、すぐにパスワードを再設定してください。

device-subject = { $app }に新しい端末からログインがありました
device-text = 新しい端末からアカウントへのログインがありました。端末: { $device }、日時: { $time }
device-unnamed-text = 新しい端末からアカウントへのログインがありました。日時: { $time }
device-advice = お心当たりがない場合は、すぐに新しいパスワードを設定してください。ほかのすべての端末からログアウトされます。

deletion-subject = { $app }のアカウントは削除される予定です
deletion-text = アカウントと、あなたが書いたすべての内容は、{ $date }に削除されます。
deletion-advice = 取り消す場合は、それまでにログインしてください。
deleted-subject = { $app }のアカウントが削除されました
deleted-text = ご依頼のとおり、アカウントと、あなたが書いたすべての内容を削除しました。今後、{ $app }からメールが届くことはありません。

invitation-subject = { $app }への招待
invitation-text = { $name }さんが、{ $app }であなたとペアになりたいと希望しています。
invitation-unnamed-text = あなたのメールアドレスを知っている人が、{ $app }であなたとペアになりたいと希望しています。このメールには名前を記載していません。招待を開くと名前が表示されます。
invitation-intro = 招待コードです。
invitation-button = 招待を開く
invitation-expiry = コードとリンクの有効期限は{ $time }です。
invitation-advice = 招待にお心当たりがない場合は、このメールを無視してください。何も変更されません。
accepted-subject = { $app }の招待が承認されました
accepted-text = { $name }さんが招待を承認しました。{ $app }でペアになりました。
accepted-advice = この人に心当たりがない場合は、アプリでペアを解消してください。

left-subject = { $app }のペアが解消されました
left-text = { $app }でペアになっていた相手が、ペアを解消しました。
left-advice = 必要な手続きはありません。アカウントはそのまま残ります。

digest-subject = { $app }に未読のメッセージがあります
digest-text = { $app }に未読のメッセージが{ $count }件あります。
digest-from-text = { $app }に{ $name }さんからの未読のメッセージが{ $count }件あります。
digest-advice = アプリを開くと、読んで返信できます。
digest-reason = このメールは、未読メッセージのメール通知を設定しているためお送りしています。
digest-stop = このメールの配信を停止する

stop-title = 未読メッセージのメール通知
stop-question = このメールの配信を停止しますか？
stop-done = 未読メッセージのメールは今後届きません。アプリで再び有効にできます。
stop-failed = このリンクは使えません。アプリでメール通知をオフにしてください。

news-subject = { $app }からのお知らせ
news-text = アプリを開いてください。

duration-seconds = { $count }秒
duration-minutes = { $count }分
duration-hours = { $count }時間
duration-days = { $count }日

date = { $year }年{ $month }月{ $day }日
date-time = { $date } { $time }（UTC）
