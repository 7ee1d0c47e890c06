# Formal polite style: hamnida, haseyo. No particle that depends on a final consonant follows a variable with a name.

code-subject = { $app } 인증 코드
sign-up-intro = 이메일 주소를 확인하려면 다음 코드를 입력하세요.
sign-in-intro = 로그인 코드입니다.
email-intro = 새 이메일 주소를 확인하려면 다음 코드를 입력하세요.
or-open-link = 또는 다음 링크를 여세요.
confirm-button = 주소 확인
sign-in-button = 로그인
code-and-link-lifetime = 코드는 { $code_time } 동안, 링크는 { $link_time } 동안 유효합니다.
code-advice = 직접 요청하지 않았다면 이 메일을 무시하세요. 아무 일도 일어나지 않습니다. 코드를 다른 사람에게 알려 주지 마세요.

already-subject = 이미 { $app } 계정이 있습니다
already-text = 누군가가 이 주소로 { $app } 가입을 시도했습니다. 본인일 수도 있습니다. 이 주소에는 이미 계정이 있습니다.
already-advice = 평소처럼 로그인하세요. 비밀번호를 잊었다면 로그인 화면에서 새 비밀번호를 요청하세요.

password-subject = { $app } 비밀번호 재설정
password-intro = 새 비밀번호를 설정하려면 다음 링크를 여세요.
password-button = 비밀번호 설정
password-advice = 직접 요청하지 않았다면 이 메일을 무시하세요. 비밀번호는 바뀌지 않습니다.
link-lifetime = 링크는 { $time } 동안 유효합니다.

email-subject = { $app } 새 이메일 주소 확인
email-asked-subject = { $app } 이메일 주소 변경이 요청되었습니다
email-asked-text = 내 계정에 로그인한 누군가가 다른 이메일 주소로 변경을 요청했습니다. 직접 요청했다면 아무것도 하지 않아도 됩니다.
email-asked-intro = 직접 요청하지 않았다면 다음 링크를 열어 이 주소를 유지하세요.
email-asked-button = 이 주소 유지
email-asked-advice = 그런 다음 새 비밀번호를 설정하고 다른 기기에서 로그아웃하세요.
email-changed-subject = { $app } 이메일 주소가 변경되었습니다
email-changed-text = 계정의 이메일 주소가 변경되었습니다. 이 주소는 더 이상 사용되지 않습니다.
email-changed-advice = 직접 변경하지 않았다면 즉시 이 메일에 회신하세요.
email-confirmed-text = 이제 이 주소가 { $app } 계정의 이메일 주소입니다. 앞으로 이 주소로 로그인하세요.

password-changed-subject = { $app } 비밀번호가 변경되었습니다
password-changed-text = 비밀번호가 설정되었고, 다른 모든 기기에서 로그아웃되었습니다.
password-changed-advice = 직접 변경하지 않았다면 즉시 새 비밀번호를 요청하세요.

device-subject = { $app } 계정에 새로운 로그인이 있습니다
device-text = 새 기기에서 계정에 로그인했습니다. 기기: { $device }, 시간: { $time }
device-unnamed-text = 새 기기에서 계정에 로그인했습니다. 시간: { $time }
device-advice = 본인이 아니라면 즉시 새 비밀번호를 설정하세요. 다른 모든 기기에서 로그아웃됩니다.

deletion-subject = { $app } 계정이 삭제될 예정입니다
deletion-text = 계정과 작성한 모든 내용이 { $date }에 삭제됩니다.
deletion-advice = 마음이 바뀌었다면 그 전에 로그인하세요.
deleted-subject = { $app } 계정이 삭제되었습니다
deleted-text = 요청하신 대로 계정과 작성한 모든 내용이 삭제되었습니다. 앞으로 { $app } 메일은 발송되지 않습니다.

invitation-subject = { $app } 초대
invitation-text = { $name }님이 { $app } 앱에서 커플로 연결하고 싶어 합니다.
invitation-unnamed-text = 이 이메일 주소를 아는 누군가가 { $app } 앱에서 커플로 연결하고 싶어 합니다. 이 메일에는 이름이 표시되지 않습니다. 초대를 열면 이름을 볼 수 있습니다.
invitation-intro = 초대 코드입니다.
invitation-button = 초대 열기
invitation-expiry = 코드와 링크는 { $time }까지 유효합니다.
invitation-advice = 예상하지 못한 초대라면 이 메일을 무시하세요. 아무 일도 일어나지 않습니다.
accepted-subject = { $app } 초대가 수락되었습니다
accepted-text = { $name }님이 초대를 수락했습니다. 이제 { $app } 앱에서 커플로 연결되었습니다.
accepted-advice = 모르는 사람이라면 앱에서 커플 연결을 해제하세요.

left-subject = { $app } 커플 연결이 해제되었습니다
left-text = { $app } 앱에서 커플로 연결되어 있던 상대가 연결을 해제했습니다.
left-advice = 따로 하실 일은 없습니다. 계정은 그대로 유지됩니다.

digest-subject = { $app } 앱에 읽지 않은 메시지가 있습니다
digest-text = { $app } 앱에 읽지 않은 메시지가 { $count }개 있습니다.
digest-from-text = { $app } 앱에 { $name }님이 보낸 읽지 않은 메시지가 { $count }개 있습니다.
digest-advice = 앱을 열어 읽고 답장하세요.
digest-reason = 읽지 않은 메시지 메일 알림을 켜 두셔서 이 메일을 보내 드립니다.
digest-stop = 이 메일 그만 받기

stop-title = 읽지 않은 메시지 메일 알림
stop-question = 이 메일을 그만 받으시겠습니까?
stop-done = 읽지 않은 메시지에 대한 메일을 더 이상 보내지 않습니다. 앱에서 다시 켤 수 있습니다.
stop-failed = 이 링크는 사용할 수 없습니다. 앱에서 메일 알림을 끄세요.

news-subject = { $app } 소식
news-text = 앱을 여세요.

duration-seconds = { $count }초
duration-minutes = { $count }분
duration-hours = { $count }시간
duration-days = { $count }일

date = { $year }년 { $month }월 { $day }일
date-time = { $date } { $time }(UTC)
